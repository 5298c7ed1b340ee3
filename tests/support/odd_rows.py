"""A model transform that stands for dropout, but draws no random numbers, so that processes can be compared."""

import torch
from torch import nn

from afqmc.models.transforms import ModelTransform


class OddRows(nn.Dropout):
    """In training, scales every other row (the passes of R-Drop) and the second half (of two dropout samples)."""

    def forward(self, input):
        if not self.training:
            return input
        rows = torch.arange(len(input), device=input.device)
        return input * (1 + self.p * (rows % 2 + (rows >= len(input) // 2)))[:, None]


class ScaleOddRows(ModelTransform):
    """Replaces the dropout before the head."""

    def apply(self, model):
        model.dropout = OddRows(0.5)
