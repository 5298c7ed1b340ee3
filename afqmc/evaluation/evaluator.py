"""A model and a split to logits, and to figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from afqmc.data.batching import WHOLE, Shard, collate, eval_batches
from afqmc.data.loading import Pairs
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.evaluation.metrics import classification_metrics, has_prediction, probabilities_of

_SAMPLED, _SHARES = 256, (0, 0.25, 0.5, 0.9)  # pairs looked at, and by length the places of those that are tried
_CUT = 8  # their sentences are cut to max_length / 8 characters
_ROUNDING = 1e-3  # of a probability in float32

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

    def describe_missing(self, what: str) -> str | None:
        """How many pairs of ``what`` have no prediction, and why, in words; None if all have one."""
        count, pairs = len(self.without_prediction), len(self.logits)
        return f"{count} of {pairs} {what} pairs have logits that are NaN or infinite" if count else None


def predict_logits(
    model: nn.Module,
    encoded: TokenizedPairs,
    encoder: PairTokenizer,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
    share: Shard = WHOLE,
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
    encoded: TokenizedPairs,
    encoder: PairTokenizer,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
    share: Shard = WHOLE,
) -> Evaluation:
    """Logits of a split, with its metrics where it has labels."""
    logits = predict_logits(model, encoded, encoder, batch_size, device, watch, share)
    return Evaluation(logits, {} if encoded.labels is None else classification_metrics(logits, encoded.labels))


def prefixed(split: str, metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics as ``split/name``."""
    return {f"{split}/{name}": value for name, value in metrics.items()}


def padding_effect(model: nn.Module, pairs: Pairs, encoder: PairTokenizer) -> float:
    """Measure how far padding changes a pair's probabilities; about 0 where the model uses the attention mask.

    Scores four pairs, in float32, without padding and with padding added to them, so the result does not depend on
    whether the pairs differ in length. Long sentences are cut to leave space for padding. Random states are restored.

    Args:
        model: On the CPU.
        pairs: Of which the four are taken.
        encoder: Makes tokens of them.

    Returns:
        The largest difference of a probability.
    """
    texts = list(zip(pairs.sentence1[:_SAMPLED], pairs.sentence2[:_SAMPLED], strict=True))
    texts.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    chosen = [texts[number] for number in sorted({int(share * (len(texts) - 1)) for share in _SHARES})]
    letters = max(encoder.max_length // _CUT, 1)
    first, second = ([text[:letters] for text in column] for column in zip(*chosen, strict=True))
    encoded = encoder.encode(Pairs(pairs.file, list(range(len(chosen))), first, second, None))
    width = min(2 * int(encoded.lengths.max()) + 8, encoder.max_length)

    def probabilities(multiple: int) -> np.ndarray:
        batches = (collate(encoded, np.array([row]), encoder, multiple) for row in range(len(encoded)))
        return probabilities_of(torch.cat([model(**batch.inputs).float() for batch in batches]).numpy())

    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        difference = np.abs(probabilities(1) - probabilities(width)).max()
    model.train(was_training)
    return float(difference)


def padding_warning(model: nn.Module, pairs: Pairs, encoder: PairTokenizer) -> str | None:
    """What to warn of where ``padding_effect`` is more than rounding."""
    effect = padding_effect(model, pairs, encoder)
    if not effect >= _ROUNDING:  # NaN is reported by the evaluations
        return None
    return (
        f"a pair's probabilities depend on the padding of its batch (by up to {effect:.4f}): the model does not leave "
        "padding out by attention_mask, so the other pairs of a batch change its figures"
    )
