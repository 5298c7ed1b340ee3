"""The ``model`` group: which encoder, how its states become one vector, and what a model from scratch looks like."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

from afqmc.utils.fields import config_field


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

    name_or_path: Optional[str] = config_field(None, "hub id or local directory of weights, config and tokenizer")
    revision: Optional[str] = config_field(None, "branch, tag or commit on the hub")
    from_scratch: bool = config_field(False, "take the architecture of name_or_path with random weights")
    architecture: dict[str, Any] = config_field(
        {}, "with from_scratch: changes to the encoder's config, such as num_hidden_layers"
    )
    vocab_size: int = config_field(
        8000, "with from_scratch and no name_or_path: entries of the WordPiece vocabulary", ge=100, le=1_000_000
    )
    mimetic_init: bool = config_field(False, "with from_scratch: attention starts by matching equal tokens")
    pooling: Pooling = config_field(Pooling.cls, "cls, mean, max, first_last_mean or pooler")
    head_dropout: Optional[float] = config_field(
        None, "before the linear layer; null takes the encoder's own", ge=0, lt=1
    )
    _target_: Optional[str] = config_field(
        None, "your own: called with num_labels, vocab_size, pad_token_id and args; returns a module"
    )
    transforms: dict[str, Any] = config_field(
        {}, "changes after loading, such as freezing: a name and a _target_ with arguments each"
    )
    args: dict[str, Any] = config_field({}, "keyword arguments of _target_")
