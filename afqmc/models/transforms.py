"""Model transforms: changes to a model after loading and before the optimizer is built."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from afqmc.models.config import ModelConfig
from afqmc.utils.errors import InputError
from afqmc.utils.targets import import_target, instantiate_all

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

    def save(self, directory: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Write files beside saved weights, such as an adapter in its own format.

        Args:
            directory: Of the weights.
            model: The transformed model.
            state: Its state dict, on the CPU, before ``merge``.
        """

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
    """Return the transforms that keys of the ``model`` group switch on, by key, in the order of their application.

    Raises:
        InputError: if two of them exclude each other, or a package is missing.
    """
    transforms: dict[str, ModelTransform] = {}
    lora = config.lora
    # by their paths, since these modules import this one
    if config.reinit_layers:
        transforms["reinit_layers"] = import_target("afqmc.models.reinit.ReinitLayers", "model")(config.reinit_layers)
    if config.freeze:
        transforms["freeze"] = import_target("afqmc.models.freezing.Freeze", "model")(config.freeze)
    if lora.r:
        if config.freeze or config.reinit_layers or config.mixout:
            other = "freeze" if config.freeze else "reinit_layers" if config.reinit_layers else "mixout"
            raise InputError(f"model.lora.r={lora.r}: not with model.{other}; LoRA freezes all layers of the encoder")
        arguments = (lora.r, lora.alpha, lora.dropout, lora.targets)
        transforms["lora"] = import_target("afqmc.models.lora.Lora", "model")(*arguments)
    if config.mixout:
        transforms["mixout"] = import_target("afqmc.models.mixout.Mixout", "model")(config.mixout)
    return transforms


def all_transforms(config: ModelConfig) -> dict[str, ModelTransform]:
    """Build the built-in transforms and those of ``model.transforms``, in the order of their application.

    Raises:
        InputError: naming the transform, or the argument that it does not have or rejects.
    """
    built_in, own = built_in_transforms(config), build_transforms(config.transforms)
    if shared := sorted(built_in.keys() & own.keys()):
        raise InputError(f"model.transforms.{shared[0]}: has the name of model.{shared[0]}; give it another name")
    return built_in | own


def build_transforms(config: Mapping[str, Any]) -> dict[str, ModelTransform]:
    """Build ``model.transforms``: a name and a ``_target_`` with arguments each, applied in this order.

    Raises:
        InputError: naming the transform, or the argument that it does not have or rejects.
    """
    return instantiate_all(config, "model.transforms", _EXAMPLE, ModelTransform)
