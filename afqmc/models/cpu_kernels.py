"""Quicker stand-ins for two parts of an encoder on a CPU: attention over short rows, and dropout's random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

_NAME = "afqmc_cpu"
_STEPS = 1 << 16  # a 16-bit number decides about an element


def dropout_noise(like: Tensor, p: float) -> Tensor:
    """0 with probability ``p``, else ``1 / (1 - p)``, in the shape and type of ``like``; p to the nearest 1/65536.

    PyTorch draws on one core alone and takes several nanoseconds an element: dropout on a layer's output costs as much
    as a matrix product. Here one draw of 64 bits, in about a nanosecond, decides about four elements. The generator
    (SFC64, Doty-Humphrey 2010) is seeded anew by one draw from PyTorch's, which thus remains the only state there is.
    """
    seed = int(torch.randint(torch.iinfo(torch.int64).max, ()).item())
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    threshold = min(round(p * _STEPS), _STEPS - 1)
    kept = words.view(np.uint16)[: like.numel()] >= np.uint16(threshold)
    value = torch.tensor(_STEPS / (_STEPS - threshold), dtype=like.dtype)
    if like.dtype is torch.bfloat16:  # which numpy does not know: its bits as an integer
        bits = np.multiply(kept, np.int16(value.view(torch.int16).item()), dtype=np.int16)
        return torch.from_numpy(bits).view(torch.bfloat16).view(like.shape)
    noise = np.multiply(kept, np.float32(value.item()), dtype=np.float32)
    return torch.from_numpy(noise).to(like.dtype).view(like.shape)


class QuickDropout(nn.Dropout):
    """``nn.Dropout`` with ``dropout_noise``: the same distribution, other masks."""

    def forward(self, input: Tensor) -> Tensor:
        """Zero a share ``p`` of the elements while training, scale the others."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        return input * dropout_noise(input, self.p)


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention for ``transformers``: (B, H, T, D) each, with an additive mask, to (B, T, H, D).

    The scores of a sentence pair are few, so they are written out; scale, mask and conversion to float32 are one pass.
    PyTorch's own kernels take longer at such lengths, above all with dropout, and its softmax takes longer in bf16.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3))
    if attention_mask is None:
        scores = scores.float() * scale
    else:
        scores = torch.add(attention_mask.float(), scores, alpha=scale)
    weights = torch.softmax(scores, dim=-1)
    if isinstance(getattr(module, "dropout", None), QuickDropout):
        weights = weights.to(query.dtype)
        weights = weights * dropout_noise(weights, dropout) if dropout > 0 else weights
    else:
        weights = F.dropout(weights, dropout).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, eager_attention)
AttentionMaskInterface.register(_NAME, eager_mask)


def use_fast_cpu_kernels(model: nn.Module, quick_dropout: bool) -> None:
    """Give a model on a CPU these parts, where it is made of those that they stand in for.

    Args:
        model: Changed in place; its parameters and their names stay as they are.
        quick_dropout: Whether dropout may draw other masks than PyTorch's generator would.
    """
    if quick_dropout:
        for dropout in [module for module in model.modules() if type(module) is nn.Dropout]:
            dropout.__class__ = QuickDropout
    for encoder in [module for module in model.modules() if isinstance(module, PreTrainedModel)]:
        if encoder._supports_attention_backend and encoder.config._attn_implementation == "sdpa":
            encoder.set_attn_implementation(_NAME)
