"""Faster CPU implementations of attention for short sequences and of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

CPU_ATTENTION = "afqmc_cpu"
_LEVELS = 1 << 16  # each element is dropped or kept by 16 random bits


def dropout_noise(like: Tensor, p: float) -> Tensor:
    """Return a dropout mask: 0 with probability ``p``, else ``1 / (1 - p)``, in the shape and dtype of ``like``.

    ``p`` is rounded to a multiple of 1/65536. PyTorch draws on one core and takes several nanoseconds per element, so
    that dropout on a layer's output costs as much as a matrix product. Here one draw of 64 bits takes about a
    nanosecond and serves four elements. The generator (SFC64, Doty-Humphrey 2010) is seeded on each call by one draw
    from PyTorch's generator, so that PyTorch's remains the only random state to save and restore.
    """
    seed = int(torch.randint(torch.iinfo(torch.int64).max, ()).item())
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    threshold = min(round(p * _LEVELS), _LEVELS - 1)
    keep = words.view(np.uint16)[: like.numel()] >= np.uint16(threshold)
    value = torch.tensor(_LEVELS / (_LEVELS - threshold), dtype=like.dtype)
    if like.dtype is torch.bfloat16:  # numpy has no bfloat16: multiply its bits as int16
        bits = np.multiply(keep, np.int16(value.view(torch.int16).item()), dtype=np.int16)
        return torch.from_numpy(bits).view(torch.bfloat16).view(like.shape)
    noise = np.multiply(keep, np.float32(value.item()), dtype=np.float32)
    return torch.from_numpy(noise).to(like.dtype).view(like.shape)


class FastDropout(nn.Dropout):
    """``nn.Dropout`` with ``dropout_noise``: the same distribution, but different masks for the same seed."""

    def forward(self, input: Tensor) -> Tensor:
        """In training, set elements to zero with probability ``p`` and scale the others."""
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
    """Compute softmax attention: query, key and value (B, H, T, D) with an additive mask to (B, T, H, D).

    Has the signature of an attention function of ``transformers``. Sentence pairs are short, so the score matrix is
    small and is materialised; one pass scales it, adds the mask and converts it to float32. At these lengths PyTorch's
    fused kernels are slower, above all with dropout, and so is its softmax in bf16.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3))
    if attention_mask is None:
        scores = scores.float() * scale
    else:
        scores = torch.add(attention_mask.float(), scores, alpha=scale)
    weights = torch.softmax(scores, dim=-1)
    if isinstance(getattr(module, "dropout", None), FastDropout):
        weights = weights.to(query.dtype)
        weights = weights * dropout_noise(weights, dropout) if dropout > 0 else weights
    else:
        weights = F.dropout(weights, dropout).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def use_fast_cpu_kernels(model: nn.Module, fast_dropout: bool) -> None:
    """Replace the SDPA attention and, if ``fast_dropout`` is set, dropout of a model on the CPU, in place.

    Parameters do not change. Fast dropout draws other masks for the same seed.
    """
    AttentionInterface.register(CPU_ATTENTION, eager_attention)
    AttentionMaskInterface.register(CPU_ATTENTION, eager_mask)
    if fast_dropout:
        for dropout in [module for module in model.modules() if type(module) is nn.Dropout]:
            dropout.__class__ = FastDropout
    for encoder in [module for module in model.modules() if isinstance(module, PreTrainedModel)]:
        if encoder._supports_attention_backend and encoder.config._attn_implementation == "sdpa":
            encoder.set_attn_implementation(CPU_ATTENTION)


def keep_linear_weights_in_bf16(model: nn.Module) -> None:
    """Convert the weights of linear layers of pretrained models to bfloat16, for predictions with autocast, in place.

    Autocast converts them in each forward pass. For a single pair, that costs more than the matrix products. The bits
    of the logits are the same. Weights that another module uses too, and layers of other classes, are not converted.
    """
    layers = [
        layer
        for pretrained in model.modules()
        if isinstance(pretrained, PreTrainedModel)
        for layer in pretrained.modules()
        if type(layer) is nn.Linear
    ]
    others = {
        id(value)
        for module in model.modules()
        if type(module) is not nn.Linear
        for value in module.parameters(recurse=False)
    }
    for layer in layers:
        if not others & {id(value) for value in layer.parameters()}:
            layer.to(torch.bfloat16)
