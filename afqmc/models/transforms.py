"""Model transforms: changes to a model after loading and before the optimizer is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from afqmc.utils.errors import InputError
from afqmc.utils.targets import instantiate

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


def build_transforms(config: Mapping[str, Any]) -> list[ModelTransform]:
    """Build ``model.transforms``: a name and a ``_target_`` with arguments each, applied in this order.

    Raises:
        InputError: naming the transform, or the argument that it does not have or rejects.
    """
    transforms = []
    for name, entry in config.items():
        key = f"model.transforms.{name}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{key}={entry}: must be a mapping with _target_, such as {{_target_: {_EXAMPLE}}}")
        transform = instantiate(entry, key, _EXAMPLE)
        if not isinstance(transform, ModelTransform):
            raise InputError(f"{key}._target_={entry['_target_']}: must be a subclass of {__name__}.ModelTransform")
        transforms.append(transform)
    return transforms
