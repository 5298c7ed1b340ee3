"""How a batch is divided over accumulation and processes: ``batch_size`` is the whole of it, however many there are."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from afqmc.distributed.rank import Rank, is_true
from afqmc.training.config import DistributedConfig, PerformanceConfig, Strategy, TrainerConfig
from afqmc.utils.errors import InputError


def describe_batch_division(batch_size: int, config: TrainerConfig, rank: Rank) -> str:
    """The division in words, for a person to check.

    Raises:
        InputError: where a process would have no pair, with the nearest sizes that are possible.
    """
    parts, size = config.gradient_accumulation_steps, rank.world_size
    if batch_size < parts * size:
        fewer = batch_size // size
        less = f" or trainer.gradient_accumulation_steps={fewer}" if fewer else f" or at most {batch_size} processes"
        raise InputError(
            f"batch_size={batch_size}: cannot be divided over {size} processes x {parts} parts "
            f"(trainer.gradient_accumulation_steps): a pair each at least; possible: batch_size={parts * size}{less}"
        )
    few, rest = divmod(batch_size, parts * size)
    each = f"{few}" if rest == 0 else f"{few} or {few + 1}"
    accumulated = "" if parts == 1 else f" x {parts} parts, one after another,"
    return f"a batch of {batch_size} pairs is {size} processes{accumulated} x {each} pairs"


def check_processes(
    trainer: TrainerConfig, distributed: DistributedConfig, performance: PerformanceConfig, rank: Rank, device: str
) -> None:
    """Check that the config fits the number of processes.

    Raises:
        InputError: naming the key that does not.
    """
    fsdp = distributed.strategy is Strategy.fsdp
    if fsdp and rank.is_single:
        raise InputError(
            "distributed.strategy=fsdp: needs several processes, such as torchrun --nproc_per_node 2 -m ...; to resume "
            "with one, add distributed.strategy=ddp"
        )
    for key in ("fsdp_sharding", "fsdp_cpu_offload"):
        if not fsdp and getattr(distributed, key) != getattr(DistributedConfig(), key):
            raise InputError(f"distributed.{key}: only with distributed.strategy=fsdp")
    if rank.is_single:
        return
    conflicts = (
        ("trainer.auto_microbatch=true", trainer.auto_microbatch, "several processes, which divide each batch alike"),
        (
            "distributed.fsdp_cpu_offload=true", distributed.fsdp_cpu_offload and device == "cpu",
            f"trainer.device={device}; it needs a GPU to off-load from",
        ),
        ("performance.torch_compile", fsdp and performance.torch_compile is not None, "distributed.strategy=fsdp"),
        (
            "trainer.mixed_precision=fp16", fsdp and trainer.mixed_precision.value == "fp16",
            "distributed.strategy=fsdp; legal: auto, no, bf16",
        ),
    )  # fmt: skip
    for key, is_set, other in conflicts:
        if is_set:
            raise InputError(f"{key}: not with {other}")


log = logging.getLogger(__name__)

_PRECISIONS = ("", "no", "bf16", "fp16")
USES_FSDP = "ACCELERATE_USE_FSDP"


def check_launcher(device: str, precision: str | None, environment: Mapping[str, str] = os.environ) -> None:
    """Hold what the launcher was told to what the config says; what is left to its defaults says nothing.

    Args:
        device: As chosen by the config.
        precision: Likewise; None where nothing is trained: precision and accumulation then have no effect.
        environment: Of this process.

    Raises:
        InputError: naming the option, and the key that is there for it; or the variable, and its legal values.
    """

    def told(name: str) -> str:
        return environment.get(f"ACCELERATE_{name}", "").lower()

    def is_set(name: str) -> bool:
        return is_true(told(name))

    dynamo, parts, mixed = told("DYNAMO_BACKEND"), told("GRADIENT_ACCUMULATION_STEPS"), told("MIXED_PRECISION")
    if parts and not (parts.isascii() and parts.isdecimal()):  # Accelerate reads it whatever is done
        raise InputError(f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={parts}: must be a whole number")
    if precision is None:
        parts = mixed = ""
    if mixed not in _PRECISIONS:
        raise InputError(
            f"ACCELERATE_MIXED_PRECISION={mixed}: legal: {', '.join(_PRECISIONS[1:])}; or unset it, and set "
            "trainer.mixed_precision"
        )
    hindrances = {
        "use_fsdp: say distributed.strategy=fsdp": is_set("USE_FSDP"),
        "use_deepspeed: not here; distributed.strategy=fsdp saves memory too": is_set("USE_DEEPSPEED"),
        "use_megatron_lm: not here": is_set("USE_MEGATRON_LM"),
        "use_parallelism_config: not here": is_set("USE_PARALLELISM_CONFIG"),
        f"dynamo_backend={dynamo}: say performance.torch_compile=default": dynamo not in ("", "no"),
        f"gradient_accumulation_steps={parts}: say trainer.gradient_accumulation_steps={parts}":
            parts not in ("", "1"),
        f"mixed_precision={mixed}: the config has {precision}; say trainer.mixed_precision={mixed}":
            mixed not in ("", "no", precision),
        "cpu: say trainer.device=cpu": is_set("USE_CPU") and device != "cpu",
    }  # fmt: skip
    for hindrance, there in hindrances.items():
        if there:
            raise InputError(f"accelerate launch --{hindrance} (an accelerate config file may have it, too)")
    if is_set("USE_CPU") and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        log.warning("one process: accelerate launch --cpu starts no more, whatever --num_processes is; torchrun does")
