"""Padding-free encoding: the tokens of a batch in one long row, which is padded for attention only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from afqmc.models.cpu_kernels import eager_attention

_NAME = "afqmc_packed"  # transformers builds no mask for it, because no mask function has this name


@dataclass(frozen=True)
class Packing:
    """Positions of the N tokens in a padded batch.

    Attributes:
        indices: Indices (N,) of the tokens in the flattened batch (B * T,).
        mask: (B, T), True for tokens.
    """

    indices: Tensor
    mask: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> Packing:
        """Build the packing of an attention mask (B, T)."""
        return cls(mask.flatten().nonzero().squeeze(1), mask.bool())

    def pack(self, padded: Tensor) -> Tensor:
        """Remove padding: (B, T, ...) to (1, N, ...)."""
        return padded.flatten(0, 1)[self.indices].unsqueeze(0)

    def pad(self, packed: Tensor) -> Tensor:
        """Add padding of zeros: (1, N, ...) to (B, T, ...)."""
        flat = packed.new_zeros(self.mask.numel(), *packed.shape[2:]).index_copy(0, self.indices, packed.squeeze(0))
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
    """Compute attention within each row of the batch: query, key and value (1, H, N, D) to (1, N, H, D).

    BERT-style encoders do not separate packed rows by their position ids, so the rows are padded here.
    """
    assert packing is not None, "the encoder does not pass its arguments on to attention"
    q, k, v = (packing.pad(states.transpose(1, 2)).transpose(1, 2) for states in (query, key, value))
    mask = packing.mask[:, None, None, :]
    if q.device.type == "cpu":
        bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        return packing.pack(eager_attention(module, q, k, v, bias, scaling, dropout)[0]), None
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return packing.pack(attended.transpose(1, 2)), None


def use_packed_attention(encoder: PreTrainedModel) -> None:
    """Replace the attention of the encoder by one for packed batches."""
    AttentionInterface.register(_NAME, _attend)
    encoder.set_attn_implementation(_NAME)


def encode_packed(
    encoder: PreTrainedModel, inputs: dict[str, Tensor], need_first_layer: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the hidden states (B, T, H) of the last and, if needed, the first layer, without computing padding."""
    packing = Packing.from_mask(inputs["attention_mask"])
    tokens = {name: packing.pack(tensor) for name, tensor in inputs.items() if name != "attention_mask"}
    rows, length = inputs["input_ids"].shape
    positions = torch.arange(length, device=packing.indices.device).expand(rows, length) + first_position(
        encoder.config
    )
    output = encoder(
        **tokens, position_ids=packing.pack(positions), output_hidden_states=need_first_layer, packing=packing
    )
    first_layer_states = packing.pad(output.hidden_states[1]) if need_first_layer else None
    return packing.pad(output.last_hidden_state), first_layer_states


def can_pack(encoder: PreTrainedModel) -> bool:
    """Return whether the attention of the encoder can be replaced."""
    return bool(encoder._supports_attention_backend)


def first_position(config: PreTrainedConfig) -> int:
    """Return the position id of the first token. RoBERTa-style encoders count from ``pad_token_id + 1``."""
    return (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
