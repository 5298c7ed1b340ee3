"""Evaluate a masked language model: the loss and the accuracy on the masked tokens of a split."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afqmc.data.batching import WHOLE, Batch, Shard
from afqmc.data.masking import IGNORED, Masker, masked_eval_batches
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.evaluation.evaluator import Evaluation, OnProgress, compute_rows

_LARGEST_EXPONENT = 709.0  # of float64


def evaluate_masked_lm(
    model: nn.Module,
    tokenized: TokenizedPairs,
    pair_tokenizer: PairTokenizer,
    batch_size: int,
    device: torch.device,
    masker: Masker,
    seed: int,
    on_progress: OnProgress | None = None,
    shard: Shard = WHOLE,
) -> Evaluation:
    """Compute the metrics of a split whose masks depend only on ``seed``.

    Returns:
        The metrics ``loss`` (mean cross-entropy of a masked token, in nats), ``masked_accuracy`` and ``perplexity``
        (e to the loss), and per sentence in place of logits: the summed loss, the number of tokens that are predicted
        correctly, and the number of masked tokens, (N, 3) float32.
    """

    def forward(batch: Batch) -> Tensor:
        assert batch.labels is not None
        is_masked = batch.labels != IGNORED
        logits, labels = model(**batch.inputs, masked=is_masked).float(), batch.labels[is_masked]
        sentence = is_masked.nonzero()[:, 0]  # of each masked token
        values = torch.stack(
            [
                F.cross_entropy(logits, labels, reduction="none"),
                (logits.argmax(dim=1) == labels).float(),
                torch.ones_like(labels, dtype=torch.float32),
            ],
            dim=1,
        )
        return values.new_zeros(len(batch), 3).index_add_(0, sentence, values)

    batches = masked_eval_batches(tokenized, pair_tokenizer, batch_size, masker, seed, shard)
    rows = compute_rows(model, forward, batches, len(tokenized), device, on_progress, shard)
    return Evaluation(rows, masked_lm_metrics(rows))


def masked_lm_metrics(rows: np.ndarray) -> dict[str, float]:
    """Return loss, masked_accuracy and perplexity of the rows (N, 3) of ``evaluate_masked_lm``."""
    loss_sum, correct, count = rows.astype(np.float64).sum(axis=0).tolist()
    loss = loss_sum / max(count, 1)
    perplexity = math.exp(loss) if loss < _LARGEST_EXPONENT else loss * math.inf  # NaN stays NaN
    return {"loss": loss, "masked_accuracy": correct / max(count, 1), "perplexity": perplexity}
