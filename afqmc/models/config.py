"""The ``model`` config group."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from afqmc.utils.fields import config_field


class Pooling(Enum):
    """How the hidden states (B, T, H) of pairs are reduced to one vector per pair (B, H)."""

    cls = "cls"  # state of the first token
    mean = "mean"  # mean over the tokens without padding
    max = "max"  # maximum over the same tokens
    first_last_avg = "first_last_avg"  # mean over tokens and over the first and last layer
    pooler_output = "pooler_output"  # the encoder's pooler; for BERT, a linear layer and tanh on [CLS]


class Head(Enum):
    """The part of the model that computes logits (B, C) from the hidden states (B, T, H)."""

    linear = "linear"  # pooling, dropout and one linear layer
    native = "native"  # the classification head of the architecture in transformers, with its own pooling


@dataclass
class DropoutConfig:
    """Dropout before the linear head, in addition to ``classifier_dropout``."""

    multi_sample: int = config_field(
        1, "dropout masks per pair before the linear head; the loss is the mean over them; 1: off", ge=1
    )


@dataclass
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2022), with ``peft``."""

    r: Optional[int] = config_field(None, "rank of the changes to the weights; null or 0: no LoRA", ge=0)
    alpha: float = config_field(16.0, "scale of the changes, alpha / r", gt=0)
    dropout: float = config_field(0.0, "dropout on the inputs of the adapter", ge=0, lt=1)
    targets: Optional[list[str]] = config_field(
        None, "names of linear layers, such as [query,value]; null: all linear layers of the encoder's layers"
    )


@dataclass
class ModelConfig:
    """The model: an encoder with a classification head, or any module given by ``_target_``."""

    name_or_path: Optional[str] = config_field(None, "hub id, or local directory with weights, config and tokenizer")
    revision: Optional[str] = config_field(None, "branch, tag or commit of the hub model")
    from_scratch: bool = config_field(
        False, "random weights in the architecture of name_or_path (a BERT if it is null)"
    )
    config_overrides: dict[str, Any] = config_field(
        {}, "with from_scratch: values that replace those of the encoder's config, such as num_hidden_layers"
    )
    vocab_size: int = config_field(
        8000, "with from_scratch and no name_or_path: size of the WordPiece vocabulary", ge=100, le=1_000_000
    )
    mimetic_init: bool = config_field(False, "with from_scratch: initialise attention to match equal tokens")
    head: Head = config_field(
        Head.linear,
        "linear (pooling, dropout, a linear layer) or native (the architecture's own classification head and pooling, "
        "pretrained if its number of labels fits)",
    )
    pooling: Pooling = config_field(Pooling.cls, "cls, mean, max, first_last_avg or pooler_output")
    classifier_dropout: Optional[float] = config_field(
        None, "dropout before the linear head; null takes that of the encoder's config", ge=0, lt=1
    )
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    mixout: float = config_field(
        0.0,
        "probability that weights of the encoder are replaced by the initial ones in training, instead of dropout; "
        "0: off",
        ge=0,
        lt=1,
    )
    _target_: Optional[str] = config_field(
        None,
        "your own model: a callable that takes num_labels, vocab_size, pad_token_id and kwargs, and returns a module",
    )
    freeze: list[Any] = config_field(
        [], "layers that are not trained: embeddings, encoder, pooler, layer numbers or ranges such as 0-5"
    )
    reinit_layers: int = config_field(
        0, "top layers of the encoder that start from new random weights, with the pooler if it is used", ge=0
    )
    lora: LoraConfig = field(default_factory=LoraConfig)
    transforms: dict[str, Any] = config_field(
        {}, "changes after loading, such as freezing: a name and a _target_ with arguments each"
    )
    kwargs: dict[str, Any] = config_field({}, "keyword arguments of _target_")
