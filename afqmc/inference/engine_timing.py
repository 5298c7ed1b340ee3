"""Time engines in turns, so that other programs on the machine slow down all of them alike."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afqmc.data.batching import eval_batches
from afqmc.data.config import DatasetConfig
from afqmc.data.download import cache_dir
from afqmc.data.pairs import Pairs
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.utils.errors import InputError
from afqmc.utils.files import read_json_or_empty, write_json

_PAIRS, _BATCH = 128, 32  # a few batches of dev


class Autocast(nn.Module):
    """A model of PyTorch on the CPU in the precision of its run.

    Args:
        model: In evaluation mode.
        precision: ``no`` or ``bf16``.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model, self.is_bf16 = model, precision == "bf16"

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            return self.model(**inputs)  # type: ignore[no-any-return]


def compute_in_turns(
    engines: Mapping[str, nn.Module],
    tokenized: TokenizedPairs,
    pair_tokenizer: PairTokenizer,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return logits (N, C) and seconds by engine. Each batch goes through all engines before the next one.

    The first batch is computed once more before that, since engines compile at their first call.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    seconds: dict[str, float] = dict.fromkeys(engines, 0.0)
    indices: list[np.ndarray] = []
    with torch.inference_mode():
        for rows, batch in eval_batches(tokenized, pair_tokenizer, batch_size):
            for name, engine in engines.items():
                if not indices:
                    engine(**batch.inputs)
                start = time.perf_counter()
                output: Tensor = engine(**batch.inputs)
                seconds[name] += time.perf_counter() - start
                parts[name].append(output.float().numpy())
            indices.append(rows)
            if on_batch is not None:
                on_batch(len(rows))
    order = np.concatenate(indices).argsort()
    return {name: np.concatenate(arrays)[order] for name, arrays in parts.items()}, seconds


def measure_speeds(engines: Mapping[str, nn.Module], dev: Pairs, pair_tokenizer: PairTokenizer) -> dict[str, float]:
    """Return the pairs per second of each engine on a few batches of dev."""
    few = Pairs(dev.file, dev.ids[:_PAIRS], dev.sentence1[:_PAIRS], dev.sentence2[:_PAIRS], None)
    _, seconds = compute_in_turns(engines, pair_tokenizer.encode(few), pair_tokenizer, _BATCH)
    return {name: len(few) / value for name, value in seconds.items()}


def cached_speeds(subject: Any, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what ``measure`` returned for this subject before, or call it and keep the result in the user's cache.

    An empty result is not kept.

    Args:
        subject: Everything that the speeds depend on, such as the processor; must be JSON.
        measure: Returns numbers by name.
    """
    digest = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()
    try:
        path = cache_dir(DatasetConfig()) / "engines" / f"{digest}.json"
    except InputError:  # the home directory is unknown
        return measure()
    known = read_json_or_empty(path)
    if known and all(type(value) is float for value in known.values()):
        return known
    speeds = measure()
    with suppress(OSError):  # such as a read-only directory
        if not speeds:
            return speeds
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, speeds)
    return speeds
