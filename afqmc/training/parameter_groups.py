"""Parameter groups: which weights share a learning rate and a weight decay.

Every group has ``lr_scale``, the ratio of its learning rate to the ``lr`` of the run, if the rates differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from afqmc.models.layers import CLASSIFIER, EMBEDDINGS, LM_HEAD, POOLER, named_layers
from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target, instantiate, signature_parameters, split_target

Groups = list[dict[str, Any]]
_EXAMPLE = "afqmc.training.parameter_groups.no_decay_for_vectors"
_OFFERED = ("model", "lr", "with_decay")
GROUP_KEYS = (
    "param_groups",
    "layer_decay",
    "head_lr",
)  # keys of the optimizer group that are not arguments of _target_


def no_decay_for_vectors(model: nn.Module, with_decay: bool) -> Groups:
    """Return two groups: matrices, and biases and norms (one dimension), which have no weight decay.

    Args:
        model: Its trainable parameters are grouped.
        with_decay: Whether the optimizer has a ``weight_decay``; without it, one group has all.
    """
    return _without_decay_for_vectors(model.parameters(), with_decay)


def _without_decay_for_vectors(parameters: Iterable[nn.Parameter], with_decay: bool) -> Groups:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not with_decay:
        return [{"params": trainable}] if trainable else []
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: Groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class LayerRates:
    """Learning rates that differ between layers: ``optimizer.layer_decay`` and ``optimizer.head_lr``.

    Args:
        layer_decay: Factor on the learning rate from each encoder layer to the one below it, in (0, 1].
        head_lr: Learning rate of pooler and classifier, or of the masked-LM head; None is that of the top layer.
    """

    layer_decay: float = 1.0
    head_lr: float | None = None

    def __post_init__(self) -> None:
        decay, head_lr = self.layer_decay, self.head_lr
        if not isinstance(decay, int | float) or not 0 < decay <= 1:
            raise InputError(f"optimizer.layer_decay={decay}: must be a number > 0 and <= 1")
        if head_lr is not None and (not isinstance(head_lr, int | float) or not 0 < head_lr < float("inf")):
            raise InputError(f"optimizer.head_lr={head_lr}: must be a number > 0, or null")

    def groups(self, model: nn.Module, lr: float, with_decay: bool) -> Groups:
        """Return the groups, from the top encoder layer down, and the head last.

        Encoder layer l of L has the rate ``lr * layer_decay ** (L - l)``, and the embeddings count as layer 0
        (discriminative fine-tuning: equation 2 of Howard & Ruder 2018, arXiv:1801.06146; for BERT, Sun et al. 2019,
        arXiv:1905.05583).

        Raises:
            InputError: if the layers of the model are not known.
        """
        key = (
            f"optimizer.head_lr={self.head_lr}"
            if self.layer_decay == 1
            else f"optimizer.layer_decay={self.layer_decay}"
        )
        layers = named_layers(model, key)
        depth = sum(name.isdigit() for name in layers)
        head_lr = lr if self.head_lr is None else self.head_lr
        heads = (POOLER, CLASSIFIER, LM_HEAD)
        rates = {**dict.fromkeys(heads, head_lr), EMBEDDINGS: lr * self.layer_decay**depth}
        rates |= {str(index): lr * self.layer_decay ** (depth - 1 - index) for index in range(depth)}
        encoder = [name for name in reversed(layers) if name not in heads]
        head = [name for name in layers if name in heads]
        return [
            {**group, "layer": name, "lr": rates[name], "lr_scale": rates[name] / lr}
            for name in [*encoder, *head]
            for group in _without_decay_for_vectors(layers[name].values(), with_decay)
        ]


def build_parameter_groups(optimizer: Mapping[str, Any]) -> Callable[[nn.Module, float, bool], Groups]:
    """Return the function (model, lr, with_decay) to parameter groups that the ``optimizer`` group asks for.

    The target of ``param_groups`` is called with those of ``model``, ``lr`` (peak learning rate) and ``with_decay``
    that its signature has.

    Args:
        optimizer: The ``optimizer`` group, of which the keys ``GROUP_KEYS`` are used.

    Raises:
        InputError: when the target does not exist, or does not take its arguments; or a key is out of range.
    """
    config, layer_decay, head_lr = (optimizer.get(key) for key in GROUP_KEYS)
    rates = LayerRates(1.0 if layer_decay is None else layer_decay, head_lr)
    if rates != LayerRates():
        if config is not None:
            name = "layer_decay" if head_lr is None else "head_lr"
            raise InputError(
                f"optimizer.{name}={optimizer[name]}: not with optimizer.param_groups, which sets the rates"
            )
        return rates.groups
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


def describe_groups(optimizer: Optimizer) -> list[tuple[str, str, str, str]]:
    """Return (layer, parameters, peak learning rate, weight decay of its matrices) of each layer, from the bottom up.

    Empty if the groups are not those of layers.
    """
    layers: dict[str, list[dict[str, Any]]] = {}
    for group in optimizer.param_groups:
        layers.setdefault(group.get("layer", ""), []).append(group)
    if "" in layers:
        return []
    rows = []
    for name in sorted(layers, key=_from_bottom_up):
        groups = layers[name]
        parameters = sum(parameter.numel() for group in groups for parameter in group["params"])
        decay = max(group.get("weight_decay", 0.0) for group in groups)
        rows.append((name, f"{parameters:,}", f"{groups[0]['lr']:.3g}", f"{decay:g}"))
    return rows


def _from_bottom_up(layer: str) -> int:
    return int(layer) + 1 if layer.isdigit() else 0 if layer == EMBEDDINGS else 10**6 + (layer != POOLER)


class OptimizerReport:
    """Reports the lowest and the highest peak learning rate of an optimizer, if its groups differ in it.

    An optimizer may have ``report`` itself, with the meaning that it has for a callback.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        rates = {group["lr"] for group in optimizer.param_groups}  # just built: the schedule will change them
        self.rates = {"lowest_lr": min(rates), "highest_lr": max(rates)} if len(rates) > 1 else {}
        self.optimizer = optimizer

    def report(self) -> dict[str, float]:
        """Return the values; empty if there are none."""
        own: dict[str, float] = self.optimizer.report() if hasattr(self.optimizer, "report") else {}
        return self.rates | own
