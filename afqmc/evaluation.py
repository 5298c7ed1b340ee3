"""A model and a split to logits, and to figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from afqmc.batching.batches import eval_batches
from afqmc.batching.tokens import Encoded, Encoder
from afqmc.dataset.splits import Pairs
from afqmc.metrics import rows as written
from afqmc.metrics.classification import classification_metrics, probabilities_of

Watch = Callable[[int], None]  # told how many pairs each batch added


@dataclass(frozen=True)
class Evaluation:
    """Logits (N, C) float32 in the split's order, and the metrics where it is labelled."""

    logits: np.ndarray
    metrics: dict[str, float]


def predict_logits(
    model: nn.Module,
    encoded: Encoded,
    encoder: Encoder,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
) -> np.ndarray:
    """Logits (N, C) float32 of every row, in the split's own order, dropout off.

    Rows are batched by length, so the cost follows the tokens there are and not the padding.
    """
    was_training = model.training
    model.eval()
    parts, places = [], []
    with torch.inference_mode():
        for rows, batch in eval_batches(encoded, encoder, batch_size):
            parts.append(model(**batch.to(device).inputs).float())
            places.append(rows)
            if watch:
                watch(len(rows))
        logits = torch.cat(parts).cpu().numpy()
    model.train(was_training)
    ordered = np.empty_like(logits)
    ordered[np.concatenate(places)] = logits
    return ordered


def evaluate(
    model: nn.Module,
    encoded: Encoded,
    encoder: Encoder,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
) -> Evaluation:
    """Logits of a split, with its metrics where it has labels."""
    logits = predict_logits(model, encoded, encoder, batch_size, device, watch)
    return Evaluation(logits, {} if encoded.labels is None else classification_metrics(logits, encoded.labels))


def prediction_rows(pairs: Pairs, logits: np.ndarray, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """What predictions/<split>.jsonl holds of these pairs."""
    return written.prediction_rows(pairs.ids, probabilities_of(logits), pairs.labels, labels)
