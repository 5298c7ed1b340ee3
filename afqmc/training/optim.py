"""Build the optimizer and the learning-rate schedule, each from a ``_target_`` and its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from afqmc.models.layers import hidden_matrices
from afqmc.training.callbacks.averaged_weights import keeps_averaged_weights
from afqmc.training.parameter_groups import GROUP_KEYS, build_parameter_groups
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

_STEPS = (
    "num_training_steps",
    "total_steps",
    "total_iters",
    "T_max",
)  # names of the number of steps in libraries' schedules
_TOY_STEPS = 10**9  # more than any warm-up
_CONFLICTS = {  # as ``Callback.conflicts``, for optimizers of libraries
    # its in-place square root fails for sharded tensors
    "pytorch_optimizer.StableAdamW": ("distributed.strategy=fsdp",),
    "pytorch_optimizer.ScheduleFreeAdamW": ("callbacks.ema",),  # it averages the weights itself
}
_WARMUP = ("num_warmup_steps", "warmup_steps")


def build_optimizer(
    config: Arguments, model: nn.Module, lr: float, matrices: Sequence[Tensor] | None = None
) -> Optimizer:
    """Build the optimizer over the groups of the model's parameters.

    They are those of ``optimizer.layer_decay`` and ``optimizer.head_lr``, or of ``optimizer.param_groups``. A target
    whose signature has ``hidden_matrices`` is called with the matrices of the encoder's layers.

    Args:
        config: The ``optimizer`` group.
        model: The model to train.
        lr: Peak learning rate.
        matrices: The matrices to pass, if not those of the model.

    Raises:
        InputError: naming the argument that the target does not have or rejects.
    """
    target, arguments = split_target(config, "optimizer", "torch.optim.AdamW")
    if "lr" in arguments:
        raise InputError(f"optimizer.lr={arguments['lr']}: the learning rate is a top-level key: lr={arguments['lr']}")
    parameter_groups = build_parameter_groups(arguments)
    arguments = {name: value for name, value in arguments.items() if name not in GROUP_KEYS}
    function = import_target(target, "optimizer._target_")
    provided: Arguments = {"lr": lr}
    if "hidden_matrices" in signature_parameters(function):
        key = f"optimizer._target_={target}"
        provided["hidden_matrices"] = hidden_matrices(model, key) if matrices is None else matrices
    check_arguments(function, arguments, "optimizer", provided=("params", *provided))
    with_decay = "weight_decay" in signature_parameters(function)

    def build(arguments: Arguments) -> Any:
        return function(parameter_groups(model, lr, with_decay), **provided, **arguments)

    try:
        optimizer = build(arguments)
    except REJECTIONS as error:
        raise rejected("optimizer", target, arguments, error, build) from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer._target_={target}: built a {type(optimizer).__name__}; must be a torch Optimizer")
    return optimizer


def optimizer_conflicts(config: Arguments) -> tuple[str, ...]:
    """Return the overrides that the optimizer does not work with; its class may have them as ``conflicts``."""
    target, _ = split_target(config, "optimizer", "torch.optim.AdamW")
    conflicts: tuple[str, ...] = getattr(import_target(target, "optimizer._target_"), "conflicts", ())
    return _CONFLICTS.get(target, conflicts)


def warmup_steps(arguments: Arguments, total_steps: int) -> int:
    """Remove ``warmup_steps`` and ``warmup_ratio`` from the arguments, and return the warm-up in steps.

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
    """Build the learning-rate schedule over ``total_steps`` optimizer steps.

    The target is called with the optimizer, the number of steps (under whichever name of ``_STEPS`` its signature has),
    the warm-up steps and ``max_lr`` (a list if the groups have different rates), as far as its signature has them. A
    target without an ``optimizer`` parameter is a function ``(step, total_steps, ...)`` that returns the factor on the
    learning rate.

    Raises:
        InputError: naming the argument that the target does not have or rejects.
    """
    target, arguments = split_target(config, "scheduler", "transformers.get_linear_schedule_with_warmup")
    function = import_target(target, "scheduler._target_")
    parameters = signature_parameters(function)
    for key in ("warmup_steps", "warmup_ratio"):
        if arguments.get(key) and not set(_WARMUP) & set(parameters):
            value = arguments[key]
            raise InputError(f"scheduler.{key}={value}: {target} has no warm-up of this kind; see its own arguments")
    warmup = warmup_steps(arguments, total_steps)
    if warmup >= total_steps:
        raise InputError(f"scheduler.warmup_steps={warmup}: this run has {total_steps} steps; must be fewer than them")
    rates = [group["lr"] for group in optimizer.param_groups]
    max_lr = lr if len({*rates}) == 1 else rates
    offered = dict.fromkeys(_STEPS, total_steps) | dict.fromkeys(_WARMUP, warmup) | {"max_lr": max_lr}
    provided: Arguments = {
        name: value
        for name, value in offered.items()
        if name in parameters and (name in _WARMUP or name not in arguments)
    }
    is_factor = "optimizer" not in parameters
    check_arguments(function, arguments, "scheduler", provided=("step" if is_factor else "optimizer", *provided))

    def build(arguments: Arguments) -> Any:
        if is_factor:
            return LambdaLR(optimizer, lambda step: function(step, **provided, **arguments))
        return function(optimizer, **provided, **arguments)

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
    """Build optimizer and schedule for one small matrix, so that a wrong argument is found before anything is loaded.

    Returns:
        The optimizer over that matrix.

    Raises:
        InputError: naming the argument.
    """
    build_parameter_groups(optimizer)  # groups need the real model: only arguments are checked
    plain = {key: value for key, value in optimizer.items() if key not in GROUP_KEYS}
    linear = nn.Linear(2, 2)
    toy = build_optimizer(plain, linear, lr, [linear.weight])
    build_scheduler(scheduler, toy, total_steps, lr)
    target = str(scheduler["_target_"])
    if keeps_averaged_weights(toy) and not target.rpartition(".")[2].startswith("get_constant_schedule"):
        raise InputError(
            f"scheduler._target_={target}: {type(toy).__name__} averages its weights in place of a schedule; use "
            "scheduler=constant, with scheduler.warmup_ratio if needed"
        )
    return toy


def check_parameter_groups(optimizer: Arguments, model: nn.Module, lr: float) -> None:
    """Check that the model has the layers that the ``optimizer`` group needs. It may be on the ``meta`` device.

    Raises:
        InputError: naming the key.
    """
    target, _ = split_target(optimizer, "optimizer", "torch.optim.AdamW")
    key = f"optimizer._target_={target}"
    if "hidden_matrices" in signature_parameters(import_target(target, key)) and not hidden_matrices(model, key):
        raise InputError(f"{key}: no matrix of the encoder's layers is trained; use optimizer=adamw")
    if optimizer.get("param_groups") is None:
        build_parameter_groups(optimizer)(model, lr, True)
