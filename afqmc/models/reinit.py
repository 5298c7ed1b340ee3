"""Re-initialisation of the encoder's top layers."""

from __future__ import annotations

from torch import nn

from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.layers import encoder_layers
from afqmc.models.transforms import ModelTransform
from afqmc.utils.errors import InputError


class ReinitLayers(ModelTransform):
    """Gives the top layers of the encoder, and its pooler if it is used, new random weights.

    The top layers of a pretrained encoder are the most specialised to its pretraining task (Zhang et al. 2021,
    arXiv:2006.05987, section 5). The weights are drawn with the seed of the run, as the architecture draws those of a
    model from scratch.

    Args:
        count: Number of layers.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._parameters = 0

    def apply(self, model: nn.Module) -> None:
        """Draw new weights.

        Raises:
            InputError: if the encoder has fewer layers.
        """
        key = f"model.reinit_layers={self.count}"
        _, layers = encoder_layers(model, key)
        if self.count > len(layers):
            raise InputError(f"{key}: this model has {len(layers)} layers")
        assert isinstance(model, CrossEncoder)
        parts = [*layers[-self.count :]]
        if (pooler := getattr(model.encoder, "pooler", None)) is not None:
            parts.append(pooler)
        for part in parts:
            for parameter in part.parameters():
                parameter._is_hf_initialized = False  # transformers skips weights that it has loaded
                self._parameters += parameter.numel()
            for module in part.modules():
                model.encoder._init_weights(module)

    def report(self) -> dict[str, float]:
        """Return the number of parameters that were drawn again."""
        return {"reinitialised_parameters": self._parameters}
