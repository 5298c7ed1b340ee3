"""How a batch is divided over accumulation and processes: ``batch_size`` is the whole of it, however many there are."""

from __future__ import annotations

from dataclasses import replace

from afqmc.errors import InputError
from afqmc.ranks import Rank
from afqmc.train.config import Strategy, TrainerConfig


def divided(batch_size: int, config: TrainerConfig, rank: Rank) -> str:
    """The division in words, for a person to check.

    Raises:
        InputError: where a process would have no pair, with the nearest sizes that are possible.
    """
    parts, size = config.gradient_accumulation_steps, rank.size
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


def alone(config: TrainerConfig) -> TrainerConfig:
    """The same trainer, where one process does what several did."""
    plain = TrainerConfig()
    return replace(config, strategy=plain.strategy, shard=plain.shard, cpu_offload=plain.cpu_offload)


def check_processes(config: TrainerConfig, rank: Rank, device: str) -> None:
    """Hold the trainer to what several processes, or one, can do.

    Raises:
        InputError: naming the key that is in the way.
    """
    if config.strategy is Strategy.fsdp and rank.is_alone:
        raise InputError(
            "trainer.strategy=fsdp: needs several processes, such as torchrun --nproc_per_node 2 -m ...; with resume=, "
            "trainer.strategy=ddp goes on with one"
        )
    for key in ("shard", "cpu_offload"):
        if config.strategy is Strategy.ddp and getattr(config, key) != getattr(TrainerConfig(), key):
            raise InputError(f"trainer.{key}: only with trainer.strategy=fsdp")
    if rank.is_alone:
        return
    hindrances = {
        "auto_batch=true: not with several processes, which would divide a batch differently": config.auto_batch,
        "cuda_graphs=true: not with several processes": config.cuda_graphs,
    }
    if config.strategy is Strategy.fsdp:
        hindrances[f"cpu_offload=true: not with trainer.device={device}; it needs a GPU to off-load from"] = (
            config.cpu_offload and device == "cpu"
        )
        hindrances["compile=true: not with trainer.strategy=fsdp"] = config.compile
        hindrances["mixed_precision=fp16: not with trainer.strategy=fsdp; legal: auto, no, bf16"] = (
            config.mixed_precision.value == "fp16"
        )
    for told, there in hindrances.items():
        if there:
            raise InputError(f"trainer.{told}")
