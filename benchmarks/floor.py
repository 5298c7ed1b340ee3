"""The floor of the training time: the FLOP of fine-tuning, divided by the matmul rate of this machine.

    python -m benchmarks.floor --data DIR --model-dir DIR [--models base,small] [--pairs-per-second 31.5]

**Arithmetic.** A matmul of (n, k) by (k, m) is ``2 n k m`` FLOP. A BERT layer of width H and intermediate width I
multiplies each token by four H x H matrices (query, key, value, output) and by H x I and I x H. These are
P = 4 H^2 + 2 H I weights per layer, ``2 P`` FLOP per token. The attention of a pair of T tokens multiplies queries by
keys, and weights by values: ``2 T H`` FLOP per token each over all heads, ``4 T H`` in total. The backward pass needs
two matmuls for each of these (one per factor), so that forward and backward are three times the forward pass:

    FLOP per token = L (6 P + 12 T H)    with L layers; for a data set: L (6 P sum T + 12 H sum T^2)

This is for all tokens in all layers. ``performance.skip_unused_tokens`` saves 5/6 of the last layer's weights for all
tokens but the first: 7% of the FLOP of BERT-base, 21% with four layers.

Not counted: embeddings, which are looked up; the head, 2 H weights on one token per pair; LayerNorm, GELU, softmax,
dropout and the optimizer, which are memory traffic that an ideal program would hide or fuse; and padding. No program
reaches the floor. The share of it tells how near a program comes.

**Rate.** ``torch.matmul`` with the shapes of the model, for the forward pass and both gradients, each weighted by its
share of a step, with the tokens of a batch of 32 pairs. It is measured on this machine. The small matmuls of attention,
about 1% of the FLOP, are assumed to run at the same rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig

from benchmarks.clock import wait_for_device
from benchmarks.work import ARCHITECTURES, MAX_LENGTH, read

EPOCHS = 3
ROWS = 960  # tokens in 32 pairs of AFQMC
_SECONDS = 0.5  # of repetitions per shape


@dataclass(frozen=True)
class Floor:
    """FLOP of the training split, and the matmul rates of this machine."""

    pairs: int
    tokens_per_pair: float
    flop_per_token: float
    gflops_fp32: float
    gflops_bf16: float

    @property
    def flop_per_pair(self) -> float:
        """FLOP of the forward and backward pass of a mean pair."""
        return self.flop_per_token * self.tokens_per_pair

    @property
    def pairs_per_second(self) -> float:
        """Upper bound of the training rate on this machine, in the faster precision."""
        return max(self.gflops_fp32, self.gflops_bf16) * 1e9 / self.flop_per_pair

    def seconds(self, epochs: int = EPOCHS) -> float:
        """Return the least time for ``epochs`` passes over the training split."""
        return epochs * self.pairs / self.pairs_per_second

    def share(self, pairs_per_second: float) -> float:
        """Return the share of the floor that a measured rate reaches."""
        return pairs_per_second / self.pairs_per_second

    def to_row(self) -> dict[str, Any]:
        """Return the row for the raw file."""
        return asdict(self)


def layer_shapes(config: BertConfig) -> list[tuple[int, int, int]]:
    """Return (in, out, count per layer) of the weight matrices that multiply every token."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    return [(hidden, hidden, 4), (hidden, intermediate, 1), (intermediate, hidden, 1)]


def training_flop(config: BertConfig, lengths: Sequence[int]) -> float:
    """Return the FLOP of one forward and backward pass over pairs with these lengths in tokens."""
    weights = sum(rows * columns * count for rows, columns, count in layer_shapes(config))
    tokens, squares = sum(lengths), sum(length * length for length in lengths)
    return config.num_hidden_layers * (6.0 * weights * tokens + 12.0 * config.hidden_size * squares)


def matmul_gflops(config: BertConfig, dtype: torch.dtype, rows: int = ROWS, seconds: float = _SECONDS) -> float:
    """Return GFLOP/s of a layer's matmuls, forward and backward, in the proportions of a training step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flop = seconds_spent = 0.0
    for inner, outer, count in layer_shapes(config):
        for n, k, m in ((rows, inner, outer), (rows, outer, inner), (outer, rows, inner)):  # output, d input, d weight
            flop += count * 2.0 * n * k * m
            seconds_spent += count * _matmul_seconds(n, k, m, dtype, device, seconds)
    return flop / seconds_spent / 1e9


def _matmul_seconds(n: int, k: int, m: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    """Return the time of one matmul in the fastest of several groups of repetitions, the least disturbed one."""
    left, right = torch.randn(n, k, device=device).to(dtype), torch.randn(k, m, device=device).to(dtype)
    out = torch.empty(n, m, device=device, dtype=dtype)

    def time_group(repetitions: int) -> float:
        wait_for_device()
        start = time.perf_counter()
        for _ in range(repetitions):
            torch.matmul(left, right, out=out)
        wait_for_device()
        return (time.perf_counter() - start) / repetitions

    time_group(3)
    repetitions = max(1, int(seconds / 5 / time_group(3)))
    return min(time_group(repetitions) for _ in range(5))


def token_lengths(model_dir: Path, data: Path) -> list[int]:
    """Return the number of tokens of each training pair, with [CLS] and [SEP]."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    sentences1, sentences2, _ = zip(*read(data / "train.json", 0, None), strict=True)
    tokens = tokenizer(list(sentences1), list(sentences2), truncation=True, max_length=MAX_LENGTH).input_ids
    return [len(row) for row in tokens]


def measure_floor(model_dir: Path, data: Path, architecture: dict[str, int] | None = None) -> Floor:
    """Count the FLOP and measure the rates."""
    config = BertConfig.from_pretrained(model_dir, **(architecture or {}))
    lengths = token_lengths(model_dir, data)
    return Floor(
        pairs=len(lengths),
        tokens_per_pair=statistics.fmean(lengths),
        flop_per_token=training_flop(config, lengths) / sum(lengths),
        gflops_fp32=matmul_gflops(config, torch.float32),
        gflops_bf16=matmul_gflops(config, torch.bfloat16),
    )


def describe(name: str, floor: Floor, pairs_per_second: float | None = None) -> str:
    """Return a line that describes the floor."""
    text = (
        f"{name}: {floor.flop_per_token / 1e6:.0f} MFLOP per token forward and backward, "
        f"{floor.tokens_per_pair:.1f} tokens per pair; "
        f"matmul {floor.gflops_fp32:.0f} GFLOP/s in fp32, {floor.gflops_bf16:.0f} in bf16; "
        f"floor of {EPOCHS} epochs of {floor.pairs} pairs: "
        f"{floor.seconds():.3g} s, {floor.pairs_per_second:.1f} pairs/s"
    )
    if pairs_per_second is None:
        return text
    return f"{text}; {pairs_per_second:g} pairs/s is {floor.share(pairs_per_second):.0%} of it"


def main() -> None:
    """Print the floor of each model."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floor", description="The least training time on this machine."
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of train.json")
    parser.add_argument("--model-dir", type=Path, required=True, help="config and tokenizer of bert-base-chinese")
    parser.add_argument("--models", default="base", help="base, small or base,small")
    parser.add_argument("--pairs-per-second", type=float, help="a measured rate, to print its share of the floor")
    options = parser.parse_args()
    for name in options.models.split(","):
        floor = measure_floor(options.model_dir, options.data, ARCHITECTURES[name])
        print(describe(name, floor, options.pairs_per_second))


if __name__ == "__main__":
    main()
