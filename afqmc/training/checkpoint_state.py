"""Capture the whole state of a training, and restore it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LRScheduler

from afqmc.distributed.collectives import all_gather_objects
from afqmc.training.parallel import gather_full, load_model, load_optimizer
from afqmc.training.rng import random_state, set_random_state
from afqmc.training.state import BestTracker, LogWindow, TrainState
from afqmc.training.step import TrainStep

log = logging.getLogger(__name__)

_LR_KEYS = ("lr", "initial_lr", "max_lr", "min_lr")  # of a parameter group, in PyTorch's schedules


def capture_state(step: TrainStep, state: TrainState) -> dict[str, Any]:
    """Return the state of a training as a nested dict. All processes call it; it is the same for any number of them.

    Its tensors are the live ones. Sharded tensors are gathered; rank 0 alone gets them.
    """
    accelerator, scaler = step.accelerator, step.accelerator.scaler
    keep = accelerator.is_main_process
    return {
        "model": gather_full(accelerator.unwrap_model(step.model).state_dict(), keep),
        "optimizer": gather_full(step.optimizer.state_dict(), keep),
        "scheduler": step.scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "num_microbatches": step.num_microbatches,
        "random": all_gather_objects(accelerator, random_state()),
        "state": vars(state) | {"best": vars(state.best), "window": vars(state.window)},
    }


def restore_state(step: TrainStep, saved: dict[str, Any], seed: int, with_schedule: bool = True) -> TrainState:
    """Restore a training from what ``capture_state`` returned.

    Args:
        step: Built anew, from the same config.
        saved: The captured state.
        seed: Of the run. If the number of processes has changed, dropout is seeded anew from it.
        with_schedule: Whether to restore the schedule. A run that was made longer has a new schedule, which is advanced
            to the step of the checkpoint instead.

    Returns:
        Where the training stands.
    """
    initial_lrs = [group["lr"] for group in step.optimizer.param_groups]
    load_model(step.accelerator.unwrap_model(step.model), saved["model"])
    load_optimizer(step.optimizer, saved["optimizer"])
    fields = saved["state"]
    state = TrainState(**(fields | {"best": BestTracker(**fields["best"]), "window": LogWindow(**fields["window"])}))
    if with_schedule:
        step.scheduler.load_state_dict(saved["scheduler"])
    else:
        for group, lr in zip(step.optimizer.param_groups, initial_lrs, strict=True):
            group["lr"] = lr
        scale_lr(step, state.lr_factor)
        _fast_forward(step.scheduler, state.step)
    if step.accelerator.scaler is not None and saved["scaler"] is not None:
        step.accelerator.scaler.load_state_dict(saved["scaler"])
    step.num_microbatches = saved["num_microbatches"]
    _restore_rng(step, saved["random"], seed + state.step)
    return state


def _restore_rng(step: TrainStep, states: list[dict[str, Any]], seed: int) -> None:
    """Restore the generators of each process, or seed them anew if the number of processes has changed."""
    before, now = len(states), step.accelerator.num_processes
    if before == now:
        set_random_state(states[step.accelerator.process_index])
        return
    set_seed(seed % 2**32, device_specific=True)
    log.warning("resumed on %d processes instead of %d: dropout masks will differ from here on", now, before)


def _fast_forward(scheduler: LRScheduler, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch expects an optimizer step before each of them
        for _ in range(steps):
            scheduler.step()


def scale_lr(step: TrainStep, factor: float) -> None:
    """Multiply the learning rate, now and for the rest of the schedule."""
    for group in step.optimizer.param_groups:
        group.update({key: group[key] * factor for key in _LR_KEYS if key in group})
    _scale_base_lrs(step.scheduler, factor)


def _scale_base_lrs(scheduler: LRScheduler, factor: float) -> None:
    scheduler.base_lrs = [lr * factor for lr in scheduler.base_lrs]
    for inner in getattr(scheduler, "_schedulers", ()):  # of schedules that consist of others
        _scale_base_lrs(inner, factor)
