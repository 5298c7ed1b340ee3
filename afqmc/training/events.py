"""The events that the training loop yields."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.data.batching import Batch
from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.nonfinite import NonFiniteLossError


@dataclass(frozen=True)
class StepEnd:
    """An optimizer step was taken.

    Attributes:
        step: Counted from 1.
        epoch: Passes over the training pairs so far.
        batch: Its batch.
        seconds: Time for collating the batch and taking the step.
        lr: Its learning rate; None where reading it would make the host wait for the device.
        loss: Mean since the last row of metrics; None where reading it would make the host wait.
        pairs_per_second: Since the last row of metrics.
        metrics: A row of metrics every ``logging_steps`` steps and at the last step, else None.
    """

    step: int
    epoch: float
    batch: Batch
    seconds: float
    lr: float | None
    loss: float | None
    pairs_per_second: float
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class StepSkipped:
    """A step was not taken, since its loss was not finite."""

    step: int
    epoch: float
    error: NonFiniteLossError


@dataclass(frozen=True)
class EvaluationEnd:
    """Dev was evaluated; ``is_best`` if the monitored metric is the best so far."""

    step: int
    epoch: float
    evaluation: Evaluation
    is_best: bool


Event = StepEnd | StepSkipped | EvaluationEnd
