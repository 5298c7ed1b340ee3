"""Which metrics can choose the best weights on a dev split, by the classes that its pairs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from afqmc.evaluation.metric_names import NAMES
from afqmc.evaluation.metrics import classification_metrics
from afqmc.utils.errors import InputError, elide

_SURE = 8.0  # logit of a predicted class


def check_monitor(
    monitor: str, labels: Sequence[str], dev_counts: Sequence[int], max_dev_samples: Optional[int] = None
) -> None:
    """Refuse to choose weights by a metric that has no value on dev, or the same value whatever is predicted.

    Args:
        monitor: As ``dev/auc``.
        labels: The class names, in class order.
        dev_counts: Pairs of each class on dev.
        max_dev_samples: The limit that dev was cut at, if any, for the message.

    Raises:
        InputError: naming the metric, the classes that dev lacks and the metrics that can be used.
    """
    missing = [label for label, count in zip(labels, dev_counts, strict=True) if count == 0]
    if not missing:  # every metric is defined; scikit-learn, which takes long to import, is not needed yet
        return
    usable = usable_metrics(dev_counts)
    if monitor.partition("/")[2] not in usable:
        lacking = elide(", ".join(map(repr, missing)))
        cut = f" among its first {max_dev_samples} (dataset.max_dev_samples)" if max_dev_samples else ""
        legal = ", ".join(f"dev/{name}" for name in usable)
        raise InputError(
            f"trainer.monitor={monitor}: cannot choose the best weights: dev has no pair labelled {lacking}{cut}; "
            f"add such pairs to dev, or use one of {legal}"
        )


def usable_metrics(counts: Sequence[int]) -> list[str]:
    """The metrics that tell perfect predictions from wrong ones on a split with so many pairs of each class."""
    present = np.flatnonzero(np.asarray(counts))
    gold = np.repeat(present, 2)
    perfect = np.eye(len(counts), dtype=np.float32)[gold] * _SURE
    best, worst = classification_metrics(perfect, gold), classification_metrics(np.roll(perfect, 1, axis=1), gold)
    usable = [name for name in NAMES if np.isfinite(best[name]) and best[name] != worst[name]]
    return [name for name in usable if name != "majority_accuracy"]
