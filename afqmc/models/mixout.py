"""Mixout: in training, weights of the encoder are mixed with those that it started from."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.transforms import ModelTransform
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)


class MixoutLinear(nn.Linear):
    """A linear layer that uses ``w0 + m / (1 - p) * (w - w0)`` in training, and w in evaluation.

    w0 are the initial weights (out, in). m is 0 with probability p and else 1, one value per input feature, drawn in
    each forward pass. The mean over m is w.
    """

    p: float
    initial_weight: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output (..., out) for inputs (..., in)."""
        if not self.training:
            return super().forward(input)
        factors = F.dropout(self.weight.new_ones(1, self.in_features), self.p)
        weight = self.initial_weight + factors * (self.weight - self.initial_weight)
        return F.linear(input, weight, self.bias)


class Mixout(ModelTransform):
    """Replaces the encoder's dropout by mixout in its linear layers. The head keeps its dropout.

    Lee et al. 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models",
    arXiv:1909.11299, section 3. As in the authors' code, the outgoing weights of a random input feature are replaced
    together, biases are not mixed, and all dropout of the encoder is set to 0. Gradients are those of the mixed
    weights. As with dropout, each microbatch and each process draws its own masks.

    It keeps a copy of the linear layers' weights. It reports their distance from the initial weights (L2 norm).

    Args:
        p: Probability that a weight is replaced, in (0, 1).
    """

    conflicts: ClassVar[tuple[str, ...]] = ("distributed.strategy=fsdp",)  # shards have other shapes than the copies

    def __init__(self, p: float) -> None:
        self.p = p
        self._layers: list[MixoutLinear] = []

    def apply(self, model: nn.Module) -> None:
        """Change the model in place.

        Raises:
            InputError: if no linear layer of the encoder is trained.
        """
        assert isinstance(model, CrossEncoder)
        for module in model.encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if type(module) is nn.Linear and module.weight.requires_grad:
                module.__class__ = MixoutLinear
                assert isinstance(module, MixoutLinear)
                module.p = self.p
                module.register_buffer("initial_weight", module.weight.detach().clone(), persistent=False)
                self._layers.append(module)
        if not self._layers:
            raise InputError(f"model.mixout={self.p}: the encoder has no linear layer that is trained")
        log.info(
            "model.mixout=%g: mixes %d linear layers with their initial weights; the encoder has no dropout",
            self.p,
            len(self._layers),
        )

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Return the distance from the initial weights; nothing before the first step."""
        squares = [(layer.weight - layer.initial_weight).square().sum() for layer in self._layers]
        distance = float(torch.stack(squares).sum().sqrt())
        return {"distance": distance} if distance else {}
