"""A custom model transform: the token embeddings keep their pretrained values."""

from __future__ import annotations

from torch import nn

from afqmc.models.transforms import ModelTransform


class FreezeEmbeddings(ModelTransform):
    """Excludes every embedding table from training."""

    def apply(self, model: nn.Module) -> None:
        """Freeze the tables; the optimizer, built later, does not see them."""
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.requires_grad_(False)
