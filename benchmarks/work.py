"""The work that every contestant does: pairs, model and recipe."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.01
MAX_LENGTH = 512  # no pair of AFQMC is longer than 160, so nothing is truncated
EVAL_BATCH_SIZE = 32  # for contestants whose framework has no default of its own
SEED = 42

ARCHITECTURES: dict[str, dict[str, int]] = {  # changes to the config in --model-dir
    "base": {},
    "small": {"num_hidden_layers": 4, "hidden_size": 312, "num_attention_heads": 12, "intermediate_size": 1248},
}

Pair = tuple[str, str, int]


@dataclass(frozen=True)
class Work:
    """Paths and sizes of a measurement.

    Attributes:
        data: Directory of train.json and dev.json.
        model: Directory of config, tokenizer and random weights; the same for all contestants.
        pairs: Number of training pairs, a multiple of the batch size.
        batch_size: Pairs per optimizer step.
        epochs: Passes. The first is a warm-up, the others are timed.
        max_steps: Optimizer steps, instead of ``epochs``.
        eval_pairs: Number of dev pairs that are timed. The same number of pairs after them is the warm-up.
        scratch: Directory for files that a contestant writes.
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
    def from_json(cls, values: dict[str, Any]) -> Work:
        """Return the work that a JSON object describes."""
        paths = {key: Path(values[key]).absolute() for key in ("data", "model", "scratch")}
        return cls(**{**values, **paths})

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per pass."""
        return -(-self.pairs // self.batch_size)

    @property
    def steps(self) -> int:
        """Total number of optimizer steps."""
        return self.max_steps or self.epochs * self.steps_per_epoch

    def train_pairs(self) -> list[Pair]:
        """Read the training pairs."""
        return read(self.data / "train.json", 0, self.pairs)

    def dev_pairs(self) -> list[Pair]:
        """Read the pairs whose evaluation is timed."""
        return read(self.data / "dev.json", 0, self.eval_pairs)

    def warm_up_pairs(self) -> list[Pair]:
        """Read the pairs of the warm-up. They differ from the timed ones, so that a token cache gives no advantage."""
        return read(self.data / "dev.json", self.eval_pairs, 2 * self.eval_pairs)


def read(path: Path, start: int, stop: int | None) -> list[Pair]:
    """Read rows of a JSON-lines file as (sentence1, sentence2, label)."""
    with path.open(encoding="utf-8") as file:
        rows = map(json.loads, itertools.islice(file, start, stop))
        return [(row["sentence1"], row["sentence2"], int(row["label"])) for row in rows]


def make_checkpoint(model_dir: Path, architecture: dict[str, int], target: Path) -> None:
    """Save random weights with the tokenizer of ``model_dir`` to ``target``, in the format of ``from_pretrained``."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(SEED)
    config = BertConfig.from_pretrained(model_dir, **architecture, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(target)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (model_dir / name).exists():
            shutil.copy(model_dir / name, target)


def has_fast_bf16() -> bool:
    """Return whether this machine is faster in bf16 than in float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
