"""The ``trainer`` group: precision, accumulation, evaluation, and which evaluation is best."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

from afqmc.evaluation.metric_names import higher_is_better
from afqmc.utils.errors import InputError
from afqmc.utils.fields import knob

_LARGEST = 3.4e38  # of float32


class MixedPrecision(Enum):
    """Arithmetic of the forward pass; master weights are float32 always."""

    auto = "auto"  # bf16 where the hardware is fast at it, else no
    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Device(Enum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Mode(Enum):
    """Which direction of the monitored metric is better. The metric decides; any other direction is refused."""

    auto = "auto"  # min for a loss, else max
    max = "max"
    min = "min"


class NonFinite(Enum):
    """What follows a loss that is NaN or infinite; the optimizer never takes such a step."""

    stop = "stop"
    skip = "skip"  # leave the batch out
    rollback = "rollback"  # go back to the last checkpoint, with a lower learning rate


class SaveFailure(Enum):
    """What follows a checkpoint that could not be written; the one before it stays."""

    warn = "warn"
    stop = "stop"


class Strategy(Enum):
    """How a model is spread over several processes."""

    ddp = "ddp"  # whole on each
    fsdp = "fsdp"  # in shards


class Shard(Enum):
    """What FSDP keeps in shards between forward and backward pass; gradients and optimizer always."""

    full = "full"  # weights too: least memory
    gradients = "gradients"  # weights whole: less to send


@dataclass
class TrainerConfig:
    """How the loop runs; names as in the Hugging Face Trainer where it has the same knob."""

    max_steps: Optional[int] = knob(None, "optimizer steps; instead of epochs", ge=1)
    device: Device = knob(Device.auto, "auto, cpu, cuda or mps")
    mixed_precision: MixedPrecision = knob(MixedPrecision.auto, "auto, no, bf16 or fp16")
    gradient_accumulation_steps: int = knob(1, "parts that a batch is worked through in, to save memory", ge=1)
    max_grad_norm: Optional[float] = knob(None, "gradients are scaled down to this norm; null leaves them", gt=0)
    label_smoothing_factor: float = knob(0.0, "share of the target spread over all classes", ge=0, lt=1)
    class_weights: Any = knob(None, "null, balanced, or a list of one weight a class, in class order")
    eval_batch_size: int = knob(64, "pairs", ge=1)
    eval_steps: Optional[int] = knob(None, "steps between evaluations; null evaluates after each epoch", ge=1)
    log_steps: int = knob(50, "steps between rows of training figures", ge=1)
    monitor: str = knob("dev/accuracy", "the metric that chooses the best weights")
    mode: Mode = knob(Mode.auto, "auto, or the direction that the monitored metric has: max, and min for dev/loss")
    patience: Optional[int] = knob(None, "evaluations without improvement before training stops; null never does", ge=1)
    min_delta: float = knob(0.0, "improvement that patience counts as one", ge=0)
    save_total_limit: Optional[int] = knob(0, "weights kept of past evaluations, beside best; null keeps all", ge=0)
    save_steps: Optional[int] = knob(None, "steps between checkpoints to go on from, besides each epoch's end", ge=1)
    save_minutes: Optional[float] = knob(10.0, "minutes between such checkpoints; null: no clock", gt=0)
    on_save_failure: SaveFailure = knob(SaveFailure.warn, "when such a checkpoint cannot be written: warn or stop")
    on_nonfinite: NonFinite = knob(NonFinite.stop, "when the loss is NaN or infinite: stop, skip or rollback")
    max_nonfinite: int = knob(10, "times that skip or rollback may happen in a run", ge=1)
    rollback_lr_factor: float = knob(0.5, "on the learning rate, at each rollback", gt=0, lt=1)
    auto_batch: bool = knob(False, "out of memory: work through the same batch in twice as many parts")
    gradient_checkpointing: bool = knob(False, "compute the forward pass twice, to save memory")
    deterministic: bool = knob(False, "only kernels that give the same bits every time, where slower ones exist")
    padding_free: bool = knob(False, "pack the tokens of a batch, compute no padding; pays with batching=random")
    compile: bool = knob(False, "torch.compile the model: a minute or so at the start; seldom pays on a CPU")
    quick_dropout: bool = knob(True, "on a CPU, draw dropout's masks from a quicker generator than PyTorch's")
    strategy: Strategy = knob(Strategy.ddp, "of several processes: ddp, or fsdp for models that one device cannot hold")
    shard: Shard = knob(Shard.full, "with strategy=fsdp, full or gradients: whether weights are in shards as well")
    cpu_offload: bool = knob(False, "with strategy=fsdp, keep weights and optimizer in host memory; slow")
    timeout_s: float = knob(1800.0, "seconds that a process waits for the others before the run fails", ge=1)
    detect_anomaly: bool = knob(False, "autograd names the operation that made a NaN; slow")

    @property
    def higher_is_better(self) -> bool:
        """The direction of ``monitor``."""
        return higher_is_better(self.monitor)

    @property
    def contradicts_metric(self) -> bool:
        """Whether ``mode`` names the direction in which ``monitor`` gets worse."""
        return self.mode is not Mode.auto and (self.mode is Mode.max) != self.higher_is_better


def check_class_weights(weights: Any, num_labels: Optional[int] = None) -> None:
    """Hold ``trainer.class_weights`` to what is legal.

    Raises:
        InputError: saying what was found.
    """
    if weights is None or weights == "balanced":
        return
    numbers = isinstance(weights, list) and all(isinstance(w, int | float) and 0 < w < _LARGEST for w in weights)
    if not numbers or (num_labels is not None and len(weights) != num_labels):
        many = f"{num_labels} " if num_labels else ""
        raise InputError(
            f"trainer.class_weights={weights}: must be null, balanced, or a list of {many}positive, finite numbers"
        )
