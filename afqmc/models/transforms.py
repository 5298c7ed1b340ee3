"""Model transforms: changes to a model after loading and before the optimizer is built."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from afqmc.models.config import ModelConfig
from afqmc.utils.errors import InputError
from afqmc.utils.targets import instantiate_all

log = logging.getLogger(__name__)

_EXAMPLE = "my_module.Freeze"


class ModelTransform:
    """Base class of model transforms, such as freezing, re-initialising or adding adapters.

    A checkpoint of a transformed model is loaded without the transform. One that adds or renames weights therefore
    overrides ``merge``.

    Attributes:
        conflicts: Overrides that it does not work with, such as ``distributed.strategy=fsdp``. A run with one of them
            is refused before it loads anything.
    """

    conflicts: ClassVar[tuple[str, ...]] = ()

    def apply(self, model: nn.Module) -> None:
        """Change the model in place. It has its weights, and is on the CPU in float32."""

    def merge(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights to save, under the names of the model without the transform.

        Args:
            model: The transformed model.
            state: Its state dict, on the CPU.
        """
        return state

    def report(self) -> dict[str, float]:
        """Return values that show what was changed, such as the number of trainable parameters, in summary.json."""
        return {}


def are_merged(transforms: Iterable[ModelTransform]) -> bool:
    """Return whether a checkpoint has other weights than the transformed model."""
    return any(type(transform).merge is not ModelTransform.merge for transform in transforms)


def apply_transforms(transforms: Mapping[str, ModelTransform], model: nn.Module) -> None:
    """Change the model in place, and log what each transform reports.

    Raises:
        InputError: naming the transform that adds or removes weights without ``merge``, or leaves nothing to train.
    """
    names = {*model.state_dict()}
    for key, transform in transforms.items():
        name = type(transform).__name__
        transform.apply(model)
        if report := transform.report():
            log.info("model: %s: %s", key, ", ".join(f"{value} {number:g}" for value, number in report.items()))
        if not are_merged([transform]) and (changed := names ^ {*model.state_dict()}):
            weights = ", ".join(sorted(changed)[:3])
            raise InputError(f"model.transforms: {name} adds or removes weights ({weights}), so it must override merge")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"model.transforms: {name} leaves no weight to train")
        names = {*model.state_dict()}


def built_in_transforms(config: ModelConfig) -> dict[str, ModelTransform]:
    """Build the transforms that have a key of their own in the ``model`` group and are on, by that key.

    They are applied before those of ``model.transforms``.
    """
    targets: dict[str, dict[str, Any]] = {}
    if config.mixout > 0:
        targets["mixout"] = {"_target_": "afqmc.models.mixout.Mixout", "p": config.mixout}
    return instantiate_all(targets, "model", _EXAMPLE, ModelTransform)


def build_transforms(config: Mapping[str, Any]) -> dict[str, ModelTransform]:
    """Build ``model.transforms``: a name and a ``_target_`` with arguments each, applied in this order.

    Raises:
        InputError: naming the transform, or the argument that it does not have or rejects.
    """
    return instantiate_all(config, "model.transforms", _EXAMPLE, ModelTransform)
