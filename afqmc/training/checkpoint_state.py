"""All that a training is at a moment, as a nested state; and a training put back to it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from typing import Any

from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LRScheduler

from afqmc.distributed.collectives import of_all
from afqmc.training.parallel import load_model, load_optimizer, whole
from afqmc.training.rng import random_state, set_random_state
from afqmc.training.state import Best, Progress, Window
from afqmc.training.step import Step

log = logging.getLogger(__name__)

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a group, in PyTorch's schedules


def snapshot(step: Step, progress: Progress) -> dict[str, Any]:
    """The training as it stands, the same for any number of processes, which make it together.

    Its tensors are the live ones; of a sharded model the main process alone gets them, put together.
    """
    accelerator, scaler = step.accelerator, step.accelerator.scaler
    keep = accelerator.is_main_process
    kept = vars(progress) | {"best": asdict(progress.best), "window": vars(progress.window)}
    return {
        "model": whole(accelerator.unwrap_model(step.model).state_dict(), keep),
        "optimizer": whole(step.optimizer.state_dict(), keep),
        "scheduler": step.scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "parts": step.parts,
        "random": of_all(accelerator, random_state()),
        "progress": kept,
    }


def put_back(step: Step, state: dict[str, Any], seed: int, with_schedule: bool = True) -> Progress:
    """Put a training back to a snapshot of it; returns where it stands.

    Args:
        step: Built anew, from the same config.
        state: A ``snapshot``.
        seed: Of the run; where it goes on with another number of processes, their dropout is seeded anew from it.
        with_schedule: Whether the schedule goes on as it was; else, since the run has become longer, it is the new
            one that is brought to this step.
    """
    initial_lrs = [group["lr"] for group in step.optimizer.param_groups]
    load_model(step.accelerator.unwrap_model(step.model), state["model"])
    load_optimizer(step.optimizer, state["optimizer"])
    kept = state["progress"]
    if with_schedule:
        step.scheduler.load_state_dict(state["scheduler"])
    else:
        for group, lr in zip(step.optimizer.param_groups, initial_lrs, strict=True):
            group["lr"] = lr
        lower_lr(step, kept["lr_factor"])
        _bring_to(step.scheduler, kept["step"])
    if step.accelerator.scaler is not None and state["scaler"] is not None:
        step.accelerator.scaler.load_state_dict(state["scaler"])
    step.parts = state["parts"]
    _put_back_randomness(step, state["random"], seed + kept["step"])
    return Progress(**(kept | {"best": Best(**kept["best"]), "window": Window(**kept["window"])}))


def _put_back_randomness(step: Step, states: list[dict[str, Any]], seed: int) -> None:
    """Each process its own generators, where there are as many as there were."""
    before, now = len(states), step.accelerator.num_processes
    if before == now:
        set_random_state(states[step.accelerator.process_index])
        return
    set_seed(seed % 2**32, device_specific=True)
    log.warning("gone on with on %d processes instead of %d: dropout draws OTHER masks from here on", now, before)


def _bring_to(scheduler: LRScheduler, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch expects an optimizer's step before each of them
        for _ in range(steps):
            scheduler.step()


def lower_lr(step: Step, factor: float) -> None:
    """Multiply the learning rate, and all that the schedule will make of it."""
    for group in step.optimizer.param_groups:
        group.update({key: group[key] * factor for key in _RATES if key in group})
    _lower(step.scheduler, factor)


def _lower(scheduler: LRScheduler, factor: float) -> None:
    scheduler.base_lrs = [lr * factor for lr in scheduler.base_lrs]
    for inner in getattr(scheduler, "_schedulers", ()):  # of those that are made of others
        _lower(inner, factor)
