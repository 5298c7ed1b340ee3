"""Config groups ``trainer``, ``checkpoint``, ``distributed`` and ``performance``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.evaluation.metric_names import higher_is_better
from afqmc.utils.fields import config_field


class MixedPrecision(Enum):
    """Precision of the forward pass. Master weights are always float32."""

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
    """Direction in which the monitored metric improves. It must be auto or the direction of the metric."""

    auto = "auto"  # min for a loss, else max
    max = "max"
    min = "min"


class NonFinite(Enum):
    """Response to a loss or gradient that is NaN or infinite. The optimizer never takes such a step."""

    stop = "stop"
    skip = "skip"  # skip the batch
    rollback = "rollback"  # go back to the last checkpoint, with a lower learning rate


class SaveFailure(Enum):
    """Response to a checkpoint that could not be written. The previous checkpoint is kept."""

    warn = "warn"
    stop = "stop"


class Strategy(Enum):
    """How a model is distributed over processes."""

    ddp = "ddp"  # a full copy in each process
    fsdp = "fsdp"  # sharded


class FsdpSharding(Enum):
    """Weights that FSDP shards, besides gradients and optimizer state."""

    full_shard = "full_shard"  # weights too: least memory
    shard_grad_op = "shard_grad_op"  # weights stay gathered between forward and backward: less communication


class TorchCompile(Enum):
    """The mode of ``torch.compile``."""

    default = "default"
    reduce_overhead = "reduce-overhead"  # CUDA graphs: less overhead per step on a GPU
    max_autotune = "max-autotune"


@dataclass
class TrainerConfig:
    """Options of the training loop, named as in the Hugging Face Trainer where it has the same option."""

    max_steps: Optional[int] = config_field(None, "optimizer steps, instead of epochs", ge=1)
    device: Device = config_field(Device.auto, "auto, cpu, cuda or mps")
    mixed_precision: MixedPrecision = config_field(MixedPrecision.auto, "auto, no, bf16 or fp16")
    gradient_accumulation_steps: int = config_field(1, "microbatches per optimizer step, to save memory", ge=1)
    auto_microbatch: bool = config_field(
        False, "if memory runs out, divide the same batch into twice as many microbatches"
    )
    gradient_checkpointing: bool = config_field(False, "recompute activations in the backward pass, to save memory")
    max_grad_norm: Optional[float] = config_field(
        None, "clip the norm of the gradients to this value; null: no clipping", gt=0
    )
    eval_batch_size: int = config_field(64, "pairs per forward pass in evaluation", ge=1)
    eval_steps: Optional[int] = config_field(None, "steps between evaluations; null: once per epoch", ge=1)
    logging_steps: int = config_field(50, "steps between rows of training metrics", ge=1)
    monitor: str = config_field("dev/accuracy", "the metric that chooses the best weights")
    mode: Mode = config_field(Mode.auto, "auto, or the direction of the monitored metric: min for dev/loss, else max")
    patience: Optional[int] = config_field(
        None, "evaluations without improvement before training stops; null: never", ge=1
    )
    min_delta: float = config_field(0.0, "smallest improvement that counts for patience", ge=0)
    on_nonfinite: NonFinite = config_field(NonFinite.stop, "when the loss is NaN or infinite: stop, skip or rollback")
    max_nonfinite: int = config_field(10, "largest number of skips or rollbacks in a run", ge=1)
    rollback_lr_factor: float = config_field(0.5, "factor on the learning rate at each rollback", gt=0, lt=1)
    deterministic: bool = config_field(False, "use only kernels with bit-identical results; slower")
    detect_anomaly: bool = config_field(
        False, "find the operation that produced a NaN (autograd anomaly detection); slow"
    )

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of ``monitor`` is better."""
        return higher_is_better(self.monitor)

    @property
    def contradicts_metric(self) -> bool:
        """Whether ``mode`` is the direction in which ``monitor`` gets worse."""
        return self.mode is not Mode.auto and (self.mode is Mode.max) != self.higher_is_better


@dataclass
class CheckpointConfig:
    """Checkpoints to resume from, and weights of past evaluations."""

    save_steps: Optional[int] = config_field(
        None, "steps between checkpoints, in addition to the end of each epoch", ge=1
    )
    save_interval_minutes: Optional[float] = config_field(
        10.0, "minutes between checkpoints; null: no time limit", gt=0
    )
    on_save_failure: SaveFailure = config_field(SaveFailure.warn, "when a checkpoint cannot be written: warn or stop")
    keep_weights: Optional[int] = config_field(
        0, "evaluations whose weights are kept, in addition to the best; null: all", ge=0
    )


@dataclass
class DistributedConfig:
    """Training of one model by several processes, which torchrun, srun or accelerate launch starts."""

    strategy: Strategy = config_field(Strategy.ddp, "ddp, or fsdp for models that do not fit on one device")
    fsdp_sharding: FsdpSharding = config_field(FsdpSharding.full_shard, "with fsdp: full_shard or shard_grad_op")
    fsdp_cpu_offload: bool = config_field(False, "with fsdp: keep weights and optimizer state in host memory; slow")
    process_group_timeout_s: float = config_field(1800.0, "seconds that a process waits for the others", ge=1)


@dataclass
class PerformanceConfig:
    """Faster ways to compute the same."""

    fast_cpu_dropout: bool = config_field(True, "on a CPU: draw dropout masks with a faster random generator")
    padding_free: bool = config_field(
        False, "pack the tokens of a batch without padding; pays off with batching=random"
    )
    skip_unused_tokens: bool = config_field(
        True, "compute the last layer for the first token only, where model.pooling reads nothing else"
    )
    torch_compile: Optional[TorchCompile] = config_field(
        None, "null, default, reduce-overhead or max-autotune; compiles for about a minute, seldom pays off on a CPU"
    )
