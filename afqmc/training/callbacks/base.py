"""The base class of training callbacks, and what it sees of the training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from afqmc.data.batching import Batch
from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.events import EvaluationEnd, StepEnd
from afqmc.training.nonfinite import NonFiniteLossError
from afqmc.training.state import StepIntervals, TrainState


class StepView(Protocol):
    """The part of the optimizer step that a callback sees."""

    model: nn.Module
    optimizer: Optimizer
    accelerator: Accelerator

    def repeat_backward(self) -> None:
        """Run forward and backward over the whole batch again, and add to the gradients.

        Only in ``on_before_optimizer_step``; see ``TrainStep.repeat_backward``.
        """
        ...


class TrainerView(Protocol):
    """The part of the training that a callback sees."""

    state: TrainState
    intervals: StepIntervals

    @property
    def model(self) -> nn.Module:
        """The model, without the wrapper of DDP or FSDP."""
        ...

    @property
    def accelerator(self) -> Accelerator:
        """Device, precision and processes."""
        ...

    def evaluate(self) -> Evaluation:
        """Evaluate the model on dev, with the weights that it has now."""
        ...

    def keep_as_best(self, evaluation: Evaluation) -> None:
        """Save the weights that the model has now as the best, with their evaluation."""
        ...


class Callback:
    """Base class of training callbacks. All hooks do nothing.

    Callbacks are called in the order of the ``callbacks`` group, before the built-in ones that write weights and
    checkpoints. A run that is resumed repeats every bit, so a callback keeps all its state in ``state_dict`` and draws
    random numbers only in the hooks of the optimizer step. Every process has its own callbacks; the state of rank 0 is
    saved, and restored in all of them.

    Attributes:
        conflicts: Overrides that this callback does not work with, such as ``distributed.strategy=fsdp``, and other
            callbacks by their name in the group, such as ``callbacks.ema``. A run with one of them is refused before it
            loads anything.
        needs_whole_batch: Whether it needs all pairs of a batch at once. A run with gradient accumulation or several
            processes is then refused.
    """

    conflicts: ClassVar[tuple[str, ...]] = ()
    needs_whole_batch: ClassVar[bool] = False

    @property
    def is_off(self) -> bool:
        """Whether its arguments switch it off, such as a perturbation of size 0. The run then leaves it out."""
        return False

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Called once before the first step, after a checkpoint has been restored."""

    def on_before_forward(self, step: StepView, microbatch: Batch) -> None:
        """Called before the forward pass of each microbatch, with the same ``microbatch`` as ``on_after_backward``.

        Not called before a pass that a callback repeats.
        """

    def on_after_backward(self, step: StepView, microbatch: Batch, backward: Callable[[], None]) -> None:
        """Called after the backward pass of each microbatch; ``.grad`` has the sum over the microbatches so far.

        Args:
            step: The optimizer step.
            microbatch: Inputs (B, T) and labels (B,) of this process's share.
            backward: Runs forward and backward over the same microbatch again, and adds to the gradients. It raises
                ``NonFiniteLossError`` if that loss is NaN or infinite.
        """

    def on_before_optimizer_step(self, step: StepView) -> None:
        """Called when all gradients of the batch are complete, before they are clipped."""

    def on_after_optimizer_step(self, step: StepView) -> None:
        """Called after the weights have changed."""

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Called after each optimizer step."""

    def evaluation_weights(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which ``model`` has the weights to evaluate and to save, such as a moving average."""
        return nullcontext()

    def on_new_best(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Called when the weights that the model has now are the best so far, before ``on_evaluation_end``."""

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Called after each evaluation on dev, within ``evaluation_weights``."""

    def on_nonfinite_loss(self, trainer: TrainerView, error: NonFiniteLossError) -> None:
        """Called when a loss is NaN or infinite: after the step was skipped or rolled back, or before the run fails."""

    def on_train_end(self, trainer: TrainerView) -> None:
        """Called once after the last step, with the weights of that step; not if the training ends by an exception."""

    def on_exception(self, trainer: TrainerView, error: BaseException) -> None:
        """Called when the training ends by an exception, a signal included."""

    def on_fit_end(self, trainer: TrainerView) -> None:
        """Called once at the end, also after an exception."""

    def report(self) -> dict[str, float]:
        """Return values that show that the callback was active since the last call, such as the norm of a perturbation.

        They are in each row of training metrics, as ``NAME/value`` with the callback's name in the config, and the last
        ones in summary.json. If a callback has this method and no value was ever other than 0, the run fails.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: a nested dict of numbers, strings, lists and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


def overriding(callbacks: list[Callback], hook: str) -> list[Callback]:
    """Return the callbacks that define ``hook``, so that a hook without a user costs nothing."""
    return [callback for callback in callbacks if getattr(type(callback), hook) is not getattr(Callback, hook)]
