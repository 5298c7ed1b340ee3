"""Check a run against its processes and its launcher: how a batch is divided, and what excludes what."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from afqmc.distributed.rank import Rank, is_true
from afqmc.training.config import (
    DistributedConfig,
    FsdpSharding,
    MixedPrecision,
    PerformanceConfig,
    Strategy,
    TrainerConfig,
)
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

Rule = tuple[bool, str, str]  # is it violated, the key or option, what is wrong and what is allowed

_PRECISIONS = ("no", "bf16", "fp16")
USES_FSDP = "ACCELERATE_USE_FSDP"


def describe_batch_division(batch_size: int, config: TrainerConfig, rank: Rank) -> str:
    """Return how a batch is divided over processes and microbatches; ``batch_size`` is the size of the whole batch.

    Raises:
        InputError: when a process would have no pair; names the nearest sizes that are possible.
    """
    microbatches, processes = config.gradient_accumulation_steps, rank.world_size
    shares = microbatches * processes
    if batch_size < shares:
        fewer = batch_size // processes
        alternative = f"trainer.gradient_accumulation_steps={fewer}" if fewer else f"at most {batch_size} processes"
        raise InputError(
            f"batch_size={batch_size}: cannot be divided over {processes} processes x {microbatches} microbatches "
            f"(trainer.gradient_accumulation_steps), which need one pair each; possible: batch_size={shares} or "
            f"{alternative}"
        )
    pairs, rest = divmod(batch_size, shares)
    accumulated = "" if microbatches == 1 else f" x {microbatches} microbatches"
    return (
        f"a batch of {batch_size} pairs is {processes} processes{accumulated} x {pairs}"
        f"{f' or {pairs + 1}' if rest else ''} pairs"
    )


def check_processes(
    trainer: TrainerConfig, distributed: DistributedConfig, performance: PerformanceConfig, rank: Rank, device: str
) -> None:
    """Check that the config fits the number of processes.

    Raises:
        InputError: naming the key that does not.
    """
    fsdp, several = distributed.strategy is Strategy.fsdp, not rank.is_single
    offload = distributed.fsdp_cpu_offload
    is_sharding_set = distributed.fsdp_sharding is not FsdpSharding.full_shard
    only_fsdp, not_fsdp = "only with distributed.strategy=fsdp", "not with distributed.strategy=fsdp"
    rules: list[Rule] = [
        (
            fsdp and not several,
            "distributed.strategy=fsdp",
            "needs several processes, such as torchrun --nproc_per_node 2 -m ...; to resume with one, add "
            "distributed.strategy=ddp",
        ),
        (not fsdp and is_sharding_set, "distributed.fsdp_sharding", only_fsdp),
        (not fsdp and offload, "distributed.fsdp_cpu_offload", only_fsdp),
        (
            several and trainer.auto_microbatch,
            "trainer.auto_microbatch=true",
            "not with several processes, which must all divide a batch in the same way",
        ),
        (
            several and offload and device == "cpu",
            "distributed.fsdp_cpu_offload=true",
            f"not with trainer.device={device}; it needs a GPU to off-load from",
        ),
        (fsdp and performance.torch_compile is not None, "performance.torch_compile", not_fsdp),
        (
            fsdp and trainer.mixed_precision is MixedPrecision.fp16,
            "trainer.mixed_precision=fp16",
            f"{not_fsdp}; allowed: auto, no, bf16",
        ),
    ]
    for is_violated, key, message in rules:
        if is_violated:
            raise InputError(f"{key}: {message}")


def check_launcher(device: str, precision: str | None, environment: Mapping[str, str] = os.environ) -> None:
    """Check the options of ``accelerate launch``, which it passes on as variables, against the config.

    Options that are left to their defaults are ignored.

    Args:
        device: The device that the config selects.
        precision: The precision that the config selects. None outside of training, where precision and accumulation
            have no effect.
        environment: Of this process.

    Raises:
        InputError: naming the option and the config key to use instead, or the variable and its allowed values.
    """

    def option(name: str) -> str:
        return environment.get(f"ACCELERATE_{name}", "").lower()

    def is_on(name: str) -> bool:
        return is_true(option(name))

    accumulation, mixed, dynamo = map(option, ("GRADIENT_ACCUMULATION_STEPS", "MIXED_PRECISION", "DYNAMO_BACKEND"))
    if accumulation and not (accumulation.isascii() and accumulation.isdecimal()):  # Accelerate parses it in any case
        raise InputError(f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={accumulation}: must be a whole number")
    if precision is None:
        accumulation = mixed = ""
    if mixed not in ("", *_PRECISIONS):
        raise InputError(
            f"ACCELERATE_MIXED_PRECISION={mixed}: allowed: {', '.join(_PRECISIONS)}; or unset it, and set "
            "trainer.mixed_precision"
        )
    steps = f"gradient_accumulation_steps={accumulation}"
    rules: list[Rule] = [
        (is_on("USE_FSDP"), "use_fsdp", "use distributed.strategy=fsdp"),
        (is_on("USE_DEEPSPEED"), "use_deepspeed", "not supported; distributed.strategy=fsdp saves memory too"),
        (is_on("USE_MEGATRON_LM"), "use_megatron_lm", "not supported"),
        (is_on("USE_PARALLELISM_CONFIG"), "use_parallelism_config", "not supported"),
        (dynamo not in ("", "no"), f"dynamo_backend={dynamo}", "use performance.torch_compile=default"),
        (accumulation not in ("", "1"), steps, f"use trainer.{steps}"),
        (
            mixed not in ("", "no", precision),
            f"mixed_precision={mixed}",
            f"the config has {precision}; use trainer.mixed_precision={mixed}",
        ),
        (is_on("USE_CPU") and device != "cpu", "cpu", "use trainer.device=cpu"),
    ]
    for is_violated, name, message in rules:
        if is_violated:
            raise InputError(f"accelerate launch --{name}: {message} (an accelerate config file may set it, too)")
    if is_on("USE_CPU") and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        log.warning("one process: accelerate launch --cpu starts no more, whatever --num_processes is; use torchrun")
