"""Optimizer and learning-rate schedule, each built from a ``_target_`` and its arguments."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from afqmc.utils.errors import InputError
from afqmc.utils.targets import (
    REJECTIONS,
    Arguments,
    check_arguments,
    import_target,
    rejected,
    signature_parameters,
    split_target,
)

_STEPS = ("num_training_steps", "total_steps", "total_iters", "T_max")  # what libraries call the whole length
_TOY_STEPS = 10**9  # more than any warm-up
_WARMUP = ("num_warmup_steps", "warmup_steps")


def parameter_groups(model: nn.Module, with_decay: bool) -> list[dict[str, Any]]:
    """Matrices in one group; biases and norms, which have one dimension, in another without weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not with_decay:
        return [{"params": trained}]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(config: Arguments, model: nn.Module, lr: float) -> Optimizer:
    """The optimizer over the model's parameters, weight decay on matrices alone.

    Raises:
        InputError: naming the argument that the class does not have or refuses.
    """
    target, arguments = split_target(config, "optimizer", "torch.optim.AdamW")
    if "lr" in arguments:
        raise InputError(f"optimizer.lr={arguments['lr']}: the learning rate is a key of its own: lr={arguments['lr']}")
    function = import_target(target, "optimizer._target_")
    check_arguments(function, arguments, "optimizer", provided=("params", "lr"))
    with_decay = "weight_decay" in signature_parameters(function)

    def build(these: Arguments) -> Any:
        return function(parameter_groups(model, with_decay), lr=lr, **these)

    try:
        optimizer = build(arguments)
    except REJECTIONS as error:
        raise rejected("optimizer", target, arguments, error, build) from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer._target_={target}: built a {type(optimizer).__name__}; must be a torch Optimizer")
    return optimizer


def warmup_steps(arguments: Arguments, total_steps: int) -> int:
    """Warm-up in steps, from ``warmup_steps`` or from ``warmup_ratio`` of all steps; takes both keys out.

    Raises:
        InputError: when out of range, or both are set.
    """
    steps, ratio = arguments.pop("warmup_steps", 0), arguments.pop("warmup_ratio", 0.0)
    if not isinstance(steps, int) or steps < 0:
        raise InputError(f"scheduler.warmup_steps={steps}: must be a whole number >= 0 (steps)")
    if not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise InputError(f"scheduler.warmup_ratio={ratio}: must be >= 0 and < 1 (share of all steps)")
    if steps and ratio:
        raise InputError(f"scheduler.warmup_steps={steps} and warmup_ratio={ratio}: set one of them")
    return steps or round(ratio * total_steps)


def build_scheduler(config: Arguments, optimizer: Optimizer, total_steps: int, lr: float) -> LRScheduler:
    """The schedule over ``total_steps`` optimizer steps.

    The target is called with the optimizer, with the number of steps under whichever of the libraries' names its
    signature has, with ``num_warmup_steps``, and with ``max_lr``. A target without an ``optimizer`` parameter is a
    pure function ``(step, total_steps, ...)`` to the factor on the learning rate.

    Raises:
        InputError: naming the argument that the target does not have or refuses.
    """
    target, arguments = split_target(config, "scheduler", "transformers.get_linear_schedule_with_warmup")
    function = import_target(target, "scheduler._target_")
    wanted = {key: value for key, value in arguments.items() if key in ("warmup_steps", "warmup_ratio") and value}
    warmup = warmup_steps(arguments, total_steps)
    parameters = signature_parameters(function)
    given: Arguments = {name: total_steps for name in _STEPS if name in parameters and name not in arguments}
    given |= {name: warmup for name in _WARMUP if name in parameters}
    given |= {"max_lr": lr} if "max_lr" in parameters and "max_lr" not in arguments else {}
    pure = "optimizer" not in parameters
    if warmup >= total_steps:
        raise InputError(f"scheduler.warmup_steps={warmup}: this run has {total_steps} steps; must be fewer than them")
    for key, value in wanted.items():
        if not set(_WARMUP) & set(parameters):
            raise InputError(f"scheduler.{key}={value}: {target} has no warm-up of this kind; see its own arguments")
    check_arguments(function, arguments, "scheduler", provided=("step" if pure else "optimizer", *given))

    def build(these: Arguments) -> Any:
        if pure:
            return LambdaLR(optimizer, lambda step: function(step, **given, **these))
        return function(optimizer, **given, **these)

    try:
        scheduler = build(arguments)
    except REJECTIONS as error:
        raise rejected("scheduler", target, arguments, error, build) from error
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(
            f"scheduler._target_={target}: built a {type(scheduler).__name__}; must be a torch LRScheduler that "
            "depends on the step alone"
        )
    return scheduler


def check_optimizer_config(
    optimizer: Arguments, scheduler: Arguments, lr: float, total_steps: int = _TOY_STEPS
) -> Optimizer:
    """Build both once around one small matrix, so that a wrong argument is found before anything is loaded.

    Returns:
        The optimizer over that matrix.

    Raises:
        InputError: naming the argument.
    """
    toy = build_optimizer(optimizer, nn.Linear(2, 2), lr)
    build_scheduler(scheduler, toy, total_steps, lr)
    return toy
