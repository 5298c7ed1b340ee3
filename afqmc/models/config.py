"""The ``model`` group: which encoder, how its states become one vector, and what a model from scratch looks like."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

from afqmc.utils.fields import knob


class Pooling(Enum):
    """How the hidden states (B, T, H) of a pair become one vector (B, H)."""

    cls = "cls"  # the state of the first token
    mean = "mean"  # over the tokens that are not padding
    max = "max"
    first_last_mean = "first_last_mean"  # mean over tokens of the average of first and last layer
    pooler = "pooler"  # the encoder's own: for BERT, dense and tanh on [CLS]


@dataclass
class ModelConfig:
    """An encoder with one linear layer, or anything else by ``_target_``."""

    name_or_path: Optional[str] = knob(None, "hub id or local directory of weights, config and tokenizer")
    revision: Optional[str] = knob(None, "branch, tag or commit on the hub")
    from_scratch: bool = knob(False, "take the architecture of name_or_path with random weights")
    architecture: dict[str, Any] = knob(
        {}, "with from_scratch: changes to the encoder's config, such as num_hidden_layers"
    )
    vocab_size: int = knob(
        8000, "with from_scratch and no name_or_path: entries of the WordPiece vocabulary", ge=100, le=1_000_000
    )
    mimetic_init: bool = knob(False, "with from_scratch: attention starts by matching equal tokens")
    pooling: Pooling = knob(Pooling.cls, "cls, mean, max, first_last_mean or pooler")
    head_dropout: Optional[float] = knob(None, "before the linear layer; null takes the encoder's own", ge=0, lt=1)
    _target_: Optional[str] = knob(
        None, "your own: called with num_labels, vocab_size, pad_token_id and args; returns a module"
    )
    args: dict[str, Any] = knob({}, "keyword arguments of _target_")
