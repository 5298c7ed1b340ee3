"""The last layer of an encoder, computed for the first token only, where the head reads nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from afqmc.models.config import Pooling
from afqmc.models.cpu_kernels import CPU_ATTENTION
from afqmc.models.cross_encoder import CrossEncoder, NativeCrossEncoder

_POOLINGS = (Pooling.cls, Pooling.pooler_output)
_ATTENTION = ("sdpa", CPU_ATTENTION)  # both accept one query per pair with keys for all tokens
# layers with the attributes and the order of operations of BertLayer; their classification heads read the first token
_LAYERS = ("BertLayer", "CamembertLayer", "ElectraLayer", "ErnieLayer", "RobertaLayer", "XLMRobertaLayer")


class _FirstTokenLayer(nn.Module):
    """A layer as ``BertLayer`` of ``transformers``, which returns the states of the first token (B, 1, H).

    Keys and values are computed for all tokens (B, T, H); queries, and whatever follows attention, for the first.
    """

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        module: Any = self
        attention, first = module.attention.self, hidden_states[:, :1]
        implementation = attention.config._attn_implementation
        if implementation not in _ATTENTION:  # it was changed after the check below
            return super().forward(hidden_states, attention_mask, *args, **kwargs)  # type: ignore[no-any-return]

        def heads(states: Tensor) -> Tensor:
            return states.view(*states.shape[:-1], attention.num_attention_heads, -1).transpose(1, 2)

        attended, _weights = ALL_ATTENTION_FUNCTIONS[implementation](
            attention,
            heads(attention.query(first)),
            heads(attention.key(hidden_states)),
            heads(attention.value(hidden_states)),
            None if attention_mask is None else attention_mask[:, :, :1],
            dropout=attention.dropout.p if self.training else 0.0,
            scaling=attention.scaling,
        )
        output: Tensor = module.feed_forward_chunk(module.attention.output(attended.flatten(2), first))
        return output


def skip_unused_tokens(model: nn.Module) -> bool:
    """Compute the last layer for the first token only, in place, if its encoder is known and its head reads only that.

    The result is the same up to rounding. With dropout, other masks are drawn for the same seed. The encoder's
    ``last_hidden_state`` then has one token. Layers with hooks, subclasses and replaced parts are left alone.

    Returns:
        Whether the last layer skips tokens.
    """
    if not isinstance(model, CrossEncoder) or type(model) not in (CrossEncoder, NativeCrossEncoder):
        return False
    if model.pooling not in _POOLINGS or model.padding_free:
        return False
    layers = getattr(getattr(model.encoder, "encoder", None), "layer", None)
    if not layers or model.encoder.config._attn_implementation not in _ATTENTION:
        return False
    last = layers[-1]
    if isinstance(last, _FirstTokenLayer):
        return True
    if type(last).__name__ not in _LAYERS or last.is_decoder or not _is_unchanged(last):
        return False
    # a subclass with the same name, since FSDP finds layers by the names of their classes
    last.__class__ = type(type(last).__name__, (_FirstTokenLayer, type(last)), {})
    return True


def _is_unchanged(layer: Any) -> bool:
    """Return whether layer and attention are classes of ``transformers`` without hooks."""
    parts = (layer, layer.attention, layer.attention.self)
    source = type(layer).__module__
    return source.startswith("transformers.") and all(
        type(part).__module__ == source and not part._forward_hooks and not part._forward_pre_hooks for part in parts
    )
