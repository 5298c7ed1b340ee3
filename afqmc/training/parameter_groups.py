"""Parameter groups: which weights share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target, instantiate, signature_parameters, split_target

Groups = list[dict[str, Any]]
_EXAMPLE = "afqmc.training.parameter_groups.no_decay_for_vectors"
_OFFERED = ("model", "lr", "with_decay")


def no_decay_for_vectors(model: nn.Module, with_decay: bool) -> Groups:
    """Return two groups: matrices, and biases and norms (one dimension), which have no weight decay.

    Args:
        model: Its trainable parameters are grouped.
        with_decay: Whether the optimizer has a ``weight_decay``; without it, one group has all.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not with_decay:
        return [{"params": trainable}]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: Groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_parameter_groups(config: Mapping[str, Any] | None) -> Callable[[nn.Module, float, bool], Groups]:
    """Return the function of ``optimizer.param_groups``: (model, lr, with_decay) to parameter groups.

    The target is called with those of ``model``, ``lr`` (peak learning rate) and ``with_decay`` that its signature has.

    Raises:
        InputError: when the target does not exist, or does not take its arguments.
    """
    if config is None:
        return lambda model, lr, with_decay: no_decay_for_vectors(model, with_decay)
    key = "optimizer.param_groups"
    target, arguments = split_target(config, key, _EXAMPLE)
    function = import_target(target, f"{key}._target_")
    offered = [name for name in _OFFERED if name in signature_parameters(function)]
    check_arguments(function, arguments, key, provided=offered)
    return partial(_checked_groups, config)


def _checked_groups(config: Mapping[str, Any], model: nn.Module, lr: float, with_decay: bool) -> Groups:
    """Build the groups, and check that each trainable parameter is in one of them.

    Raises:
        InputError: naming what the target returned, or a parameter.
    """
    key = "optimizer.param_groups"
    groups = instantiate(config, key, _EXAMPLE, {"model": model, "lr": lr, "with_decay": with_decay})
    if not isinstance(groups, list) or not all(isinstance(group, dict) and "params" in group for group in groups):
        raise InputError(f"{key}._target_={config['_target_']}: must return a list of dicts with 'params'")
    groups = [{**group, "params": list(group["params"])} for group in groups if group["params"]]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and grouped.count(id(parameter)) != 1:
            problem = "in no group" if id(parameter) not in grouped else "in several groups"
            raise InputError(f"{key}._target_={config['_target_']}: {name} is {problem}; freeze it or put it into one")
    return groups
