"""Padding-free encoding: the tokens of a batch in one long row, put side by side again for attention alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from afqmc.models.cpu_kernels import eager_attention

PACKED = "afqmc_packed"  # without a mask function of this name transformers makes no mask


@dataclass(frozen=True)
class Packing:
    """Where the N tokens of a batch of B rows and T places lie: ``places`` (N,) counts them row by row."""

    places: Tensor
    mask: Tensor  # (B, T), True where there is a token

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """From an attention mask (B, T)."""
        return cls(mask.flatten().nonzero().squeeze(1), mask.bool())

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) to (1, N, ...)."""
        return padded.flatten(0, 1)[self.places].unsqueeze(0)

    def pad(self, packed: Tensor) -> Tensor:
        """(1, N, ...) to (B, T, ...), zero where there is no token."""
        flat = packed.new_zeros(self.mask.numel(), *packed.shape[2:]).index_copy(0, self.places, packed.squeeze(0))
        return flat.view(*self.mask.shape, *packed.shape[2:])


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each row: (1, H, N, D) each to (1, N, H, D).

    Position ids alone do not keep the rows of a packed batch apart in BERT and its kin; this does.
    """
    assert packing is not None, "the encoder does not hand its arguments on to attention"
    q, k, v = (packing.pad(states.transpose(1, 2)).transpose(1, 2) for states in (query, key, value))
    mask = packing.mask[:, None, None, :]
    if q.device.type == "cpu":
        bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        return packing.pack(eager_attention(module, q, k, v, bias, scaling, dropout)[0]), None
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return packing.pack(found.transpose(1, 2)), None


AttentionInterface.register(PACKED, _attend)


def encode_packed(encoder: PreTrainedModel, inputs: dict[str, Tensor], both: bool) -> tuple[Tensor, Tensor | None]:
    """Last hidden states (B, T, H) of a padded batch, its padding not computed; with ``both`` the first layer's too."""
    packing = Packing.of(inputs["attention_mask"])
    tokens = {name: packing.pack(tensor) for name, tensor in inputs.items() if name != "attention_mask"}
    rows, length = inputs["input_ids"].shape
    positions = torch.arange(length, device=packing.places.device).expand(rows, length) + first_position(encoder.config)
    output = encoder(**tokens, position_ids=packing.pack(positions), output_hidden_states=both, packing=packing)
    first = packing.pad(output.hidden_states[1]) if both else None
    return packing.pad(output.last_hidden_state), first


def can_pack(encoder: PreTrainedModel) -> bool:
    """Whether this encoder's attention can be replaced."""
    return bool(encoder._supports_attention_backend)


def first_position(config: PreTrainedConfig) -> int:
    """The position id of the first token: RoBERTa and its kin count from ``pad_token_id + 1``."""
    return (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
