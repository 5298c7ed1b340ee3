"""The least time that fine-tuning can take: the arithmetic there is, over the matmul rate that a machine attains.

    python -m benchmarks.floor --data DIR --model-dir DIR [--models base,small] [--pairs-per-second 31.5]

**Arithmetic.** A matmul of (n, k) by (k, m) is ``2 n k m`` FLOP. A BERT layer of width H and intermediate width I
multiplies each token by four H x H matrices (query, key, value, output) and by H x I and I x H: P = 4 H^2 + 2 H I
weights a layer, ``2 P`` FLOP a token. Attention of a pair of T tokens multiplies queries with keys, and weights with
values: over all heads ``2 T H`` FLOP a token each, ``4 T H`` together. The backward pass multiplies twice for each of
these (the gradient of either factor), so forward and backward are three times the forward pass:

    FLOP a token = L (6 P + 12 T H)    with L layers; for a whole data set: L (6 P sum T + 12 H sum T^2)

Embeddings are looked up, not multiplied; the head is 2 H weights on one token a pair: neither counts. LayerNorm, GELU,
softmax, dropout and the optimizer are memory traffic that a perfect program would hide or fuse; padding is not counted.
So the floor is below what any program reaches, and the share of it says how near one is.

**Rate.** ``torch.matmul`` at the model's own shapes, forward and both gradients, each in the share it has in a step,
with the tokens of a batch of 32 pairs; no other machine's figure enters. Attention's own small matmuls, a hundredth of
the whole, are taken to run at the same rate.
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
ROWS = 960  # tokens of 32 pairs of AFQMC
_SECONDS = 0.5  # that each shape is repeated for


@dataclass(frozen=True)
class Floor:
    """What there is to compute for the training split, and how fast this machine multiplies."""

    pairs: int
    tokens_per_pair: float
    flop_per_token: float
    gflops_fp32: float
    gflops_bf16: float

    @property
    def flop_per_pair(self) -> float:
        """Forward and backward."""
        return self.flop_per_token * self.tokens_per_pair

    @property
    def pairs_per_second(self) -> float:
        """That no program exceeds here, in the faster of the two precisions."""
        return max(self.gflops_fp32, self.gflops_bf16) * 1e9 / self.flop_per_pair

    def seconds(self, epochs: int = EPOCHS) -> float:
        """The floor's time for so many passes over the training split."""
        return epochs * self.pairs / self.pairs_per_second

    def share(self, pairs_per_second: float) -> float:
        """Of the floor, reached by a measured rate."""
        return pairs_per_second / self.pairs_per_second

    def to_row(self) -> dict[str, Any]:
        """For the raw file."""
        return asdict(self)


def layer_shapes(config: BertConfig) -> list[tuple[int, int, int]]:
    """(in, out, how many a layer) of the weights that multiply every token."""
    hidden, wide = config.hidden_size, config.intermediate_size
    return [(hidden, hidden, 4), (hidden, wide, 1), (wide, hidden, 1)]


def training_flop(config: BertConfig, lengths: Sequence[int]) -> float:
    """FLOP of one forward and backward pass over pairs of these lengths in tokens."""
    weights = sum(rows * columns * count for rows, columns, count in layer_shapes(config))
    tokens, squares = sum(lengths), sum(length * length for length in lengths)
    return config.num_hidden_layers * (6.0 * weights * tokens + 12.0 * config.hidden_size * squares)


def matmul_gflops(config: BertConfig, dtype: torch.dtype, rows: int = ROWS, seconds: float = _SECONDS) -> float:
    """GFLOP/s of the layer's matmuls, forward and backward, in the proportions of a training step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flop = spent = 0.0
    for inner, outer, count in layer_shapes(config):
        for n, k, m in ((rows, inner, outer), (rows, outer, inner), (outer, rows, inner)):  # output, d input, d weight
            flop += count * 2.0 * n * k * m
            spent += count * _seconds_of_matmul(n, k, m, dtype, device, seconds)
    return flop / spent / 1e9


def _seconds_of_matmul(n: int, k: int, m: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    """The fastest of several groups of repetitions: what the machine can do, not what disturbed it."""
    left, right = torch.randn(n, k, device=device).to(dtype), torch.randn(k, m, device=device).to(dtype)
    out = torch.empty(n, m, device=device, dtype=dtype)

    def group(repetitions: int) -> float:
        wait_for_device()
        since = time.perf_counter()
        for _ in range(repetitions):
            torch.matmul(left, right, out=out)
        wait_for_device()
        return (time.perf_counter() - since) / repetitions

    group(3)
    repetitions = max(1, int(seconds / 5 / group(3)))
    return min(group(repetitions) for _ in range(5))


def token_lengths(model_dir: Path, data: Path) -> list[int]:
    """Tokens of each training pair, [CLS] and [SEP]s included."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    first, second, _ = zip(*read(data / "train.json", 0, None), strict=True)
    return [len(row) for row in tokenizer(list(first), list(second), truncation=True, max_length=MAX_LENGTH).input_ids]


def measure_floor(model_dir: Path, data: Path, architecture: dict[str, int] | None = None) -> Floor:
    """Count, and measure the rates."""
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
    """The floor in words."""
    text = (
        f"{name}: {floor.flop_per_token / 1e6:.0f} MFLOP a token forward and backward, "
        f"{floor.tokens_per_pair:.1f} tokens a pair; "
        f"matmul here {floor.gflops_fp32:.0f} GFLOP/s in fp32, {floor.gflops_bf16:.0f} in bf16; "
        f"floor of {EPOCHS} epochs of {floor.pairs} pairs: "
        f"{floor.seconds():.3g} s, {floor.pairs_per_second:.1f} pairs/s"
    )
    if pairs_per_second is None:
        return text
    return f"{text}; {pairs_per_second:g} pairs/s is {floor.share(pairs_per_second):.0%} of it"


def main() -> None:
    """Print the floors."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floor", description="The floor of training on this machine."
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of train.json")
    parser.add_argument("--model-dir", type=Path, required=True, help="config and tokenizer of bert-base-chinese")
    parser.add_argument("--models", default="base", help="base, small, or both with a comma")
    parser.add_argument("--pairs-per-second", type=float, help="a measured rate, to see which share of the floor it is")
    options = parser.parse_args()
    for name in options.models.split(","):
        floor = measure_floor(options.model_dir, options.data, ARCHITECTURES[name])
        print(describe(name, floor, options.pairs_per_second))


if __name__ == "__main__":
    main()
