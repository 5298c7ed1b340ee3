"""Model transforms: changes to a model after loading and before the optimizer is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from afqmc.utils.errors import InputError
from afqmc.utils.targets import instantiate_all

_EXAMPLE = "my_module.Freeze"


class ModelTransform:
    """Base class of model transforms, such as freezing, re-initialising or adding adapters.

    A checkpoint of a transformed model is loaded without the transform. One that adds or renames weights therefore
    overrides ``merge``.
    """

    def apply(self, model: nn.Module) -> None:
        """Change the model in place. It has its weights, and is on the CPU in float32."""

    def merge(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights to save, under the names of the model without the transform.

        Args:
            model: The transformed model.
            state: Its state dict, on the CPU.
        """
        return state


def are_merged(transforms: Sequence[ModelTransform]) -> bool:
    """Return whether a checkpoint has other weights than the transformed model."""
    return any(type(transform).merge is not ModelTransform.merge for transform in transforms)


def apply_transforms(transforms: Sequence[ModelTransform], model: nn.Module) -> None:
    """Change the model in place.

    Raises:
        InputError: naming the transform that adds or removes weights without ``merge``, or leaves nothing to train.
    """
    names = {*model.state_dict()}
    for transform in transforms:
        name = type(transform).__name__
        transform.apply(model)
        if not are_merged([transform]) and (changed := names ^ {*model.state_dict()}):
            weights = ", ".join(sorted(changed)[:3])
            raise InputError(f"model.transforms: {name} adds or removes weights ({weights}), so it must override merge")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"model.transforms: {name} leaves no weight to train")
        names = {*model.state_dict()}


def build_transforms(config: Mapping[str, Any]) -> list[ModelTransform]:
    """Build ``model.transforms``: a name and a ``_target_`` with arguments each, applied in this order.

    Raises:
        InputError: naming the transform, or the argument that it does not have or rejects.
    """
    return list(instantiate_all(config, "model.transforms", _EXAMPLE, ModelTransform).values())
