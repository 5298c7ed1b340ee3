"""Config of the ``masking`` group, which makes a run one of ``afqmc pretrain``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.utils.fields import config_field


class MaskingUnit(Enum):
    """The unit that is masked as a whole."""

    token = "token"  # noqa: S105 each token by itself, as in BERT
    whole_word = "whole_word"  # all tokens of a Chinese or other word
    ngram = "ngram"  # one to max_ngram consecutive tokens


@dataclass
class MaskingConfig:
    """Masked language modelling on single sentences, with ``afqmc pretrain``."""

    unit: Optional[MaskingUnit] = config_field(None, "token, whole_word or ngram; null: a fine-tuning run")
    probability: float = config_field(0.15, "share of a sentence's tokens that are predicted", gt=0, le=0.5)
    max_ngram: int = config_field(4, "with unit=ngram: most tokens that are masked as a whole", ge=1, le=10)
    dev_share: float = config_field(0.05, "share of the sentences that are held out as dev", gt=0, lt=0.5)
