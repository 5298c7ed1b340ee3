"""A model and a split to logits, and to figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from afqmc.batching.batches import ALL, Share, eval_batches
from afqmc.batching.tokens import Encoded, Encoder
from afqmc.dataset.splits import Pairs
from afqmc.metrics import rows as written
from afqmc.metrics.classification import classification_metrics, has_prediction

Watch = Callable[[int], None]  # told how many pairs each round of batches added


@dataclass(frozen=True)
class Evaluation:
    """Logits (N, C) float32 in the split's order, and the metrics where it is labelled."""

    logits: np.ndarray
    metrics: dict[str, float]

    @property
    def without_prediction(self) -> np.ndarray:
        """Places of the rows whose logits are NaN or infinite: they have no prediction."""
        return np.flatnonzero(~has_prediction(self.logits))

    def lacking(self, what: str) -> str | None:
        """How many pairs of ``what`` have no prediction, and why, in words; None if all have one."""
        count, pairs = len(self.without_prediction), len(self.logits)
        return f"{count} of {pairs} {what} pairs have logits that are NaN or infinite" if count else None


def predict_logits(
    model: nn.Module,
    encoded: Encoded,
    encoder: Encoder,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
    share: Share = ALL,
) -> np.ndarray:
    """Logits (N, C) float32 of every row, in the split's own order, dropout off; all processes get all of them.

    Rows are batched by length, so the cost follows the tokens there are and not the padding.
    """
    was_training = model.training
    model.eval()
    parts, places = [], []
    # what FSDP puts together in inference mode cannot be trained with afterwards
    with torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode():
        for rows, batch in eval_batches(encoded, encoder, batch_size, share):
            parts.append(model(**batch.to(device).inputs).float())
            places.append(rows)
            if watch:
                watch(len(rows) * share.size)
        logits = torch.cat(parts).cpu().numpy()
    model.train(was_training)
    where = np.concatenate(places)
    if share.size > 1:
        found = gather_object([(where, logits)])
        where, logits = (np.concatenate(column) for column in zip(*found, strict=True))
    ordered = np.empty((len(encoded), logits.shape[1]), logits.dtype)
    ordered[where] = logits
    return ordered


def evaluate(
    model: nn.Module,
    encoded: Encoded,
    encoder: Encoder,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
    share: Share = ALL,
) -> Evaluation:
    """Logits of a split, with its metrics where it has labels."""
    logits = predict_logits(model, encoded, encoder, batch_size, device, watch, share)
    return Evaluation(logits, {} if encoded.labels is None else classification_metrics(logits, encoded.labels))


def prediction_rows(pairs: Pairs, logits: np.ndarray, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """What predictions/<split>.jsonl holds of these pairs."""
    return written.prediction_rows(pairs.ids, logits, pairs.labels, labels)
