"""What happens in a training, as the loop tells it."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.data.batching import Batch
from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.step import NonFiniteLossError


@dataclass(frozen=True)
class Stepped:
    """After each optimizer step.

    Attributes:
        step: Counted from 1.
        epoch: Passes over the training pairs so far.
        batch: What it was taken over.
        seconds: From the making of the batch to the end of the step.
        lr: The step's learning rate; None where reading it would make the host wait for the device.
        loss: Mean since the last row; None likewise.
        speed: Pairs a second since the last row.
        metrics: A row of figures, every ``log_steps`` and at the last step.
    """

    step: int
    epoch: float
    batch: Batch
    seconds: float
    lr: float | None
    loss: float | None
    speed: float
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class Evaluated:
    """After each evaluation; ``is_best`` when the monitored metric is the best so far."""

    step: int
    epoch: float
    evaluation: Evaluation
    is_best: bool


@dataclass(frozen=True)
class Stopped:
    """Early stopping ended the training."""

    step: int
    epoch: float
    evaluations: int


@dataclass(frozen=True)
class Skipped:
    """A step that was not taken, since its loss was not finite."""

    step: int
    epoch: float
    error: NonFiniteLossError


Event = Stepped | Evaluated | Stopped | Skipped
