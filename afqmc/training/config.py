"""The groups ``trainer``, ``checkpoint``, ``distributed`` and ``performance``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.evaluation.metric_names import higher_is_better
from afqmc.utils.fields import config_field


class MixedPrecision(Enum):
    """Precision of the forward pass; the weights themselves are always float32."""

    auto = "auto"  # bf16 if the hardware is fast at it, else no
    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Device(Enum):
    """The device to train on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Mode(Enum):
    """The better direction of the monitored metric. It depends on the metric; the other direction is refused."""

    auto = "auto"  # min for a loss, else max
    max = "max"
    min = "min"


class NonFinite(Enum):
    """What to do when a loss is NaN or infinite. The optimizer never takes such a step."""

    stop = "stop"
    skip = "skip"  # skip the batch
    rollback = "rollback"  # go back to the last checkpoint, with a lower learning rate


class SaveFailure(Enum):
    """What to do when a checkpoint cannot be written. The previous one is kept."""

    warn = "warn"
    stop = "stop"


class Strategy(Enum):
    """How a model is distributed over several processes."""

    ddp = "ddp"  # a full copy in each
    fsdp = "fsdp"  # sharded


class FsdpSharding(Enum):
    """What FSDP shards between forward and backward pass, besides gradients and optimizer state."""

    full_shard = "full_shard"  # weights: least memory
    shard_grad_op = "shard_grad_op"  # nothing else: less communication


class TorchCompile(Enum):
    """The mode of ``torch.compile``."""

    default = "default"
    reduce_overhead = "reduce-overhead"  # CUDA graphs: less overhead per step on a GPU
    max_autotune = "max-autotune"


@dataclass
class TrainerConfig:
    """How the loop runs. Options that the Hugging Face Trainer has too are named as there."""

    max_steps: Optional[int] = config_field(None, "optimizer steps; instead of epochs", ge=1)
    device: Device = config_field(Device.auto, "auto, cpu, cuda or mps")
    mixed_precision: MixedPrecision = config_field(MixedPrecision.auto, "auto, no, bf16 or fp16")
    gradient_accumulation_steps: int = config_field(1, "microbatches per optimizer step, to save memory", ge=1)
    auto_microbatch: bool = config_field(False, "out of memory: divide the same batch into twice as many microbatches")
    gradient_checkpointing: bool = config_field(False, "compute the forward pass twice, to save memory")
    max_grad_norm: Optional[float] = config_field(
        None, "gradients are scaled down to this norm; null leaves them", gt=0
    )
    eval_batch_size: int = config_field(64, "pairs", ge=1)
    eval_steps: Optional[int] = config_field(None, "steps between evaluations; null evaluates after each epoch", ge=1)
    logging_steps: int = config_field(50, "steps between rows of training metrics", ge=1)
    monitor: str = config_field("dev/accuracy", "the metric that chooses the best weights")
    mode: Mode = config_field(
        Mode.auto, "auto, or the direction that the monitored metric has: max, and min for dev/loss"
    )
    patience: Optional[int] = config_field(
        None, "evaluations without improvement before training stops; null never does", ge=1
    )
    min_delta: float = config_field(0.0, "smallest improvement that resets patience", ge=0)
    on_nonfinite: NonFinite = config_field(NonFinite.stop, "when the loss is NaN or infinite: stop, skip or rollback")
    max_nonfinite: int = config_field(10, "times that skip or rollback may happen in a run", ge=1)
    rollback_lr_factor: float = config_field(0.5, "factor on the learning rate at each rollback", gt=0, lt=1)
    deterministic: bool = config_field(
        False, "only kernels that give the same bits every time, where slower ones exist"
    )
    detect_anomaly: bool = config_field(False, "autograd names the operation that made a NaN; slow")

    @property
    def higher_is_better(self) -> bool:
        """The direction of ``monitor``."""
        return higher_is_better(self.monitor)

    @property
    def contradicts_metric(self) -> bool:
        """Whether ``mode`` names the direction in which ``monitor`` gets worse."""
        return self.mode is not Mode.auto and (self.mode is Mode.max) != self.higher_is_better


@dataclass
class CheckpointConfig:
    """What a run saves: checkpoints to resume from, and weights of past evaluations."""

    save_steps: Optional[int] = config_field(None, "steps between checkpoints, besides the end of each epoch", ge=1)
    save_interval_minutes: Optional[float] = config_field(10.0, "minutes between checkpoints; null: not by time", gt=0)
    on_save_failure: SaveFailure = config_field(SaveFailure.warn, "when a checkpoint cannot be written: warn or stop")
    keep_weights: Optional[int] = config_field(
        0, "weights kept of past evaluations, besides best; null keeps all", ge=0
    )


@dataclass
class DistributedConfig:
    """How several processes train one model; a launcher (torchrun, srun, accelerate launch) starts them."""

    strategy: Strategy = config_field(Strategy.ddp, "ddp, or fsdp for models that do not fit on one device")
    fsdp_sharding: FsdpSharding = config_field(FsdpSharding.full_shard, "with fsdp: full_shard or shard_grad_op")
    fsdp_cpu_offload: bool = config_field(False, "with fsdp: keep weights and optimizer state in host memory; slow")
    process_group_timeout_s: float = config_field(1800.0, "seconds that a process waits for the others", ge=1)


@dataclass
class PerformanceConfig:
    """Ways to compute the same faster."""

    fast_cpu_dropout: bool = config_field(True, "on a CPU: draw dropout masks from a faster generator than PyTorch's")
    padding_free: bool = config_field(
        False, "pack the tokens of a batch, compute no padding; pays with batching=random"
    )
    torch_compile: Optional[TorchCompile] = config_field(
        None, "null, default, reduce-overhead or max-autotune; takes a minute at the start, seldom pays on a CPU"
    )
