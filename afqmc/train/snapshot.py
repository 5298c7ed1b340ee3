"""All that a training is at a moment, as a nested state; and a training put back to it."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from afqmc.checkpoint.state import random_state, set_random_state
from afqmc.train.progress import Best, Progress, Window
from afqmc.train.step import Step

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a group, in PyTorch's schedules


def snapshot(step: Step, progress: Progress) -> dict[str, Any]:
    """The training as it stands; its tensors are the live ones."""
    scaler = step.accelerator.scaler
    kept = vars(progress) | {"best": asdict(progress.best), "window": vars(progress.window)}
    return {
        "model": step.accelerator.unwrap_model(step.model).state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "scheduler": step.scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "parts": step.parts,
        "random": random_state(),
        "progress": kept,
    }


def put_back(step: Step, state: dict[str, Any], with_schedule: bool = True) -> Progress:
    """Put a training back to a snapshot of it; returns where it stands.

    Args:
        step: Built anew, from the same config.
        state: A ``snapshot``.
        with_schedule: Whether the schedule goes on as it was; else, since the run has become longer, it is the new
            one that is brought to this step.
    """
    begun_at = [group["lr"] for group in step.optimizer.param_groups]
    step.accelerator.unwrap_model(step.model).load_state_dict(state["model"])
    step.optimizer.load_state_dict(state["optimizer"])
    kept = state["progress"]
    if with_schedule:
        step.scheduler.load_state_dict(state["scheduler"])
    else:
        for group, lr in zip(step.optimizer.param_groups, begun_at, strict=True):
            group["lr"] = lr
        _bring_to(step.scheduler, kept["step"])
    if step.accelerator.scaler is not None and state["scaler"] is not None:
        step.accelerator.scaler.load_state_dict(state["scaler"])
    step.parts = state["parts"]
    set_random_state(state["random"])
    return Progress(**(kept | {"best": Best(**kept["best"]), "window": Window(**kept["window"])}))


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
