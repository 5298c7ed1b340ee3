"""Compute the logits and metrics of a model on a split, and check that padding does not change its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from afqmc.data.batching import WHOLE, Batch, Shard, collate, eval_batches
from afqmc.data.loading import Pairs
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.evaluation.metrics import classification_metrics, has_prediction, mean_as_logits, probabilities_of

# the padding check takes the pairs at these quantiles of length among the first 256
_PADDING_SAMPLE, _PADDING_QUANTILES = 256, (0, 0.25, 0.5, 0.9)
_PADDING_CUT = 8  # and cuts their sentences to max_length / 8 characters
_ROUNDING = 1e-3  # a difference of probabilities below this is rounding of float32

_Value = TypeVar("_Value")

OnProgress = Callable[[int], None]  # called after each batch with the number of pairs that all processes finished


@dataclass(frozen=True)
class Evaluation:
    """Logits (N, C) float32 in the order of the split, and its metrics, which are empty without labels.

    ``by_order`` has the logits of the pairs (a, b) and, if they were computed, of (b, a). ``logits`` are their mean. In
    pretraining, the columns are those of ``afqmc.evaluation.masked_lm`` in place of logits. ``truncated`` says which
    pairs were cut to the maximum length, bool (N,), if a predictor computed them.
    """

    logits: np.ndarray
    metrics: dict[str, float]
    by_order: tuple[np.ndarray, ...] = ()
    truncated: np.ndarray | None = None

    @property
    def without_prediction(self) -> np.ndarray:
        """Indices of the rows that have no prediction, because their logits are NaN or infinite."""
        return np.flatnonzero(~has_prediction(self.logits))

    def describe_missing(self, split: str) -> str | None:
        """Say how many pairs have no prediction. None if all have one."""
        count, pairs = len(self.without_prediction), len(self.logits)
        return f"{count} of {pairs} {split} pairs have logits that are NaN or infinite" if count else None


def predict_logits(
    model: nn.Module,
    tokenized: TokenizedPairs,
    pair_tokenizer: PairTokenizer,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
    shard: Shard = WHOLE,
) -> np.ndarray:
    """Return the logits (N, C) float32 of all rows in the order of the split, without dropout.

    Rows are batched by length to keep padding small. With several processes, each computes its shard, and all return
    the logits of all rows.
    """
    batches = eval_batches(tokenized, pair_tokenizer, batch_size, shard)

    def forward(batch: Batch) -> Tensor:
        logits: Tensor = model(**batch.inputs)
        return logits.float()

    return compute_rows(model, forward, batches, len(tokenized), device, on_progress, shard)


def compute_rows(
    model: nn.Module,
    forward: Callable[[Batch], Tensor],
    batches: Iterable[tuple[np.ndarray, Batch]],
    count: int,
    device: torch.device,
    on_progress: OnProgress | None,
    shard: Shard,
) -> np.ndarray:
    """Return what ``forward`` computes for each row, (count, C) float32 in the order of the split, without dropout.

    Args:
        model: Is set to evaluation mode meanwhile.
        forward: Maps a batch of B rows on the device to (B, C).
        batches: The row indices and the batch of each batch of this process.
        count: Rows of the split.
        device: Where the model is.
        on_progress: Called after each batch.
        shard: This process; all return the values of all rows.
    """
    was_training = model.training
    if was_training:  # otherwise skipped: visiting all modules costs a millisecond, much for a single pair
        model.eval()
    batch_values, batch_rows = [], []
    # parameters that FSDP gathers in inference mode could not be trained afterwards
    with torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode():
        for rows, batch in batches:
            batch_values.append(forward(batch.to(device)))
            batch_rows.append(rows)
            if on_progress:
                on_progress(len(rows) * shard.size)
        values = torch.cat(batch_values).cpu().numpy()
    if was_training:
        model.train()
    indices = np.concatenate(batch_rows)
    if shard.size > 1:
        gathered = gather_object([(indices, values)])
        indices, values = (np.concatenate(arrays) for arrays in zip(*gathered, strict=True))
    ordered = np.empty((count, values.shape[1]), values.dtype)
    ordered[indices] = values
    return ordered


def evaluate(
    model: nn.Module,
    tokenized: TokenizedPairs,
    pair_tokenizer: PairTokenizer,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
    shard: Shard = WHOLE,
    swapped: TokenizedPairs | None = None,
) -> Evaluation:
    """Compute the logits of a split and, if it is labelled, its metrics; see ``predict_logits``.

    With ``swapped``, the same pairs in the other order, the logits are the logarithms of the mean probabilities.
    """
    by_order = tuple(
        predict_logits(model, pairs, pair_tokenizer, batch_size, device, on_progress, shard)
        for pairs in (tokenized, swapped)
        if pairs is not None
    )
    logits = by_order[0] if swapped is None else mean_as_logits([*by_order]).astype(np.float32)
    metrics = {} if tokenized.labels is None else classification_metrics(logits, tokenized.labels)
    return Evaluation(logits, metrics, by_order)


def prefixed(split: str, metrics: dict[str, _Value]) -> dict[str, _Value]:
    """Return the metrics, or their intervals, as ``split/name``."""
    return {f"{split}/{name}": value for name, value in metrics.items()}


def padding_effect(model: nn.Module, pairs: Pairs, pair_tokenizer: PairTokenizer) -> float:
    """Measure how much padding changes the probabilities of a pair; about 0 if the model uses the attention mask.

    Up to four pairs are computed in float32, one by one, without padding and with padding. So the result does not
    depend on whether the pairs differ in length. Long sentences are cut to leave space for padding. The state of the
    random-number generator is restored.

    Args:
        model: On the CPU.
        pairs: The pairs to choose from.
        pair_tokenizer: Of the model.

    Returns:
        The largest absolute difference of a probability.
    """
    texts = list(zip(pairs.sentence1[:_PADDING_SAMPLE], pairs.sentence2[:_PADDING_SAMPLE], strict=True))
    texts.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    chosen = [texts[index] for index in sorted({int(q * (len(texts) - 1)) for q in _PADDING_QUANTILES})]
    cut = max(pair_tokenizer.max_length // _PADDING_CUT, 1)
    sentences1, sentences2 = ([text[:cut] for text in column] for column in zip(*chosen, strict=True))
    tokenized = pair_tokenizer.encode(Pairs(pairs.file, list(range(len(chosen))), sentences1, sentences2, None))
    width = min(2 * int(tokenized.lengths.max()) + 8, pair_tokenizer.max_length)

    def probabilities(pad_to_multiple_of: int) -> np.ndarray:
        rows = (np.array([index]) for index in range(len(tokenized)))
        batches = (collate(tokenized, row, pair_tokenizer, pad_to_multiple_of) for row in rows)
        return probabilities_of(torch.cat([model(**batch.inputs).float() for batch in batches]).numpy())

    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        difference = np.abs(probabilities(1) - probabilities(width)).max()
    model.train(was_training)
    return float(difference)


def padding_warning(model: nn.Module, pairs: Pairs, pair_tokenizer: PairTokenizer) -> str | None:
    """Return a warning if ``padding_effect`` is larger than rounding, else None."""
    effect = padding_effect(model, pairs, pair_tokenizer)
    if not effect >= _ROUNDING:  # false for NaN, which the evaluation reports
        return None
    return (
        f"a pair's probabilities depend on the padding of its batch (by up to {effect:.4f}): the model does not "
        "mask padding with attention_mask, so its predictions depend on the other pairs of the batch"
    )
