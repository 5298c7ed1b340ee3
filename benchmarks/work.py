"""The work that every contestant does: which pairs, which model, which recipe."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.01
MAX_LENGTH = 512  # no pair of AFQMC is longer than 160: nothing is ever cut
EVAL_BATCH_SIZE = 32  # of contestants whose framework does not suggest another
SEED = 42

ARCHITECTURES: dict[str, dict[str, int]] = {  # changes to the config in the model directory
    "base": {},
    "small": {"num_hidden_layers": 4, "hidden_size": 312, "num_attention_heads": 12, "intermediate_size": 1248},
}

Pair = tuple[str, str, int]


@dataclass(frozen=True)
class Work:
    """Paths and sizes, as a worker is given them.

    Attributes:
        data: Directory of train.json and dev.json.
        model: Directory of config, tokenizer and random weights; every contestant loads the same.
        pairs: Training pairs, the first so many; a multiple of the batch, so that no batch is smaller.
        batch_size: Pairs an optimizer step.
        epochs: Passes; the first warms up, the rest are timed.
        max_steps: Stop after so many steps instead.
        eval_pairs: Pairs of dev that are timed; as many again, of those after them, warm up.
        scratch: Directory for whatever a contestant writes.
    """

    data: Path
    model: Path
    pairs: int
    batch_size: int
    epochs: int
    max_steps: int | None
    eval_pairs: int
    scratch: Path

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Work:
        """From JSON."""
        paths = {key: Path(plain[key]).absolute() for key in ("data", "model", "scratch")}
        return cls(**{**plain, **paths})

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass."""
        return -(-self.pairs // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.max_steps or self.epochs * self.steps_per_epoch

    def train_pairs(self) -> list[Pair]:
        """The pairs to train on."""
        return read(self.data / "train.json", 0, self.pairs)

    def dev_pairs(self) -> list[Pair]:
        """The pairs whose evaluation is timed."""
        return read(self.data / "dev.json", 0, self.eval_pairs)

    def warm_up_pairs(self) -> list[Pair]:
        """Other pairs, evaluated first: whoever remembers what was tokenised gains nothing."""
        return read(self.data / "dev.json", self.eval_pairs, 2 * self.eval_pairs)


def read(path: Path, start: int, stop: int | None) -> list[Pair]:
    """Rows of a JSON-lines file as (sentence, sentence, label)."""
    with path.open(encoding="utf-8") as file:
        rows = map(json.loads, itertools.islice(file, start, stop))
        return [(row["sentence1"], row["sentence2"], int(row["label"])) for row in rows]


def make_checkpoint(model_dir: Path, architecture: dict[str, int], target: Path) -> None:
    """Random weights of an architecture with the tokenizer of ``model_dir``, as ``from_pretrained`` reads them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(SEED)
    config = BertConfig.from_pretrained(model_dir, **architecture, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(target)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (model_dir / name).exists():
            shutil.copy(model_dir / name, target)


def has_fast_bf16() -> bool:
    """Whether bf16 autocast is what one would choose on this machine."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
