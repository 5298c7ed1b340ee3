"""Freezing: layers of the encoder that keep their pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from afqmc.models.layers import named_layers, select_layers
from afqmc.models.transforms import ModelTransform


class Freeze(ModelTransform):
    """Excludes layers from training (compared by Lee et al. 2019, arXiv:1911.03090).

    Args:
        layers: ``embeddings``, ``encoder``, ``pooler``, and layers by number or range, such as ``0-5``.
    """

    def __init__(self, layers: Sequence[str | int]) -> None:
        self.layers = layers
        self._counts: dict[str, float] = {}

    def apply(self, model: nn.Module) -> None:
        """Freeze the layers; the optimizer, built later, does not see them.

        Raises:
            InputError: if the model has no such layer.
        """
        key = f"model.freeze=[{','.join(map(str, self.layers))}]"
        layers = named_layers(model, key)
        for name in select_layers(layers, self.layers, key):
            for parameter in layers[name].values():
                parameter.requires_grad_(False)
        counts = {True: 0, False: 0}
        for parameter in model.parameters():
            counts[parameter.requires_grad] += parameter.numel()
        self._counts = {"trainable_parameters": counts[True], "frozen_parameters": counts[False]}

    def report(self) -> dict[str, float]:
        """Return the numbers of trainable and frozen parameters."""
        return self._counts
