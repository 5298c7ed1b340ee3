"""Check that ``trainer.monitor`` can choose the best weights, given the classes that occur in dev."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afqmc.evaluation.decision import can_cross_fit
from afqmc.evaluation.metric_names import DECIDED_NAMES, NAMES
from afqmc.evaluation.metrics import classification_metrics
from afqmc.utils.errors import InputError, elide

_CONFIDENT = 8.0  # logit of the predicted class


def check_monitor(
    monitor: str, labels: Sequence[str], dev_counts: Sequence[int], max_dev_samples: int | None = None
) -> None:
    """Check that the monitored metric is defined on dev and depends on the predictions.

    Args:
        monitor: The metric, such as ``dev/roc_auc``.
        labels: Label names, in class order.
        dev_counts: Number of dev pairs per class.
        max_dev_samples: The value of ``dataset.max_dev_samples``, for the message.

    Raises:
        InputError: with the metric, the classes that do not occur in dev, and the metrics that can be used.
    """
    if monitor.partition("/")[2] in DECIDED_NAMES:
        if not can_cross_fit(dev_counts):
            raise InputError(
                f"trainer.monitor={monitor}: a decision needs two classes with at least two dev pairs each; add such "
                "pairs to dev, or use dev/loss"
            )
        return
    missing = [label for label, count in zip(labels, dev_counts, strict=True) if count == 0]
    if not missing:  # all metrics are defined; do not import scikit-learn, which is slow
        return
    usable = usable_metrics(dev_counts)
    if monitor.partition("/")[2] not in usable:
        absent = elide(", ".join(map(repr, missing)))
        cut = f" among its first {max_dev_samples} (dataset.max_dev_samples)" if max_dev_samples else ""
        allowed = ", ".join(f"dev/{name}" for name in usable)
        raise InputError(
            f"trainer.monitor={monitor}: cannot choose the best weights: dev has no pair labelled {absent}{cut}; "
            f"add such pairs to dev, or use one of {allowed}"
        )


def usable_metrics(counts: Sequence[int]) -> list[str]:
    """Return the metrics whose values for perfect and for wrong predictions differ, given the pairs per class."""
    present = np.flatnonzero(np.asarray(counts))
    gold = np.repeat(present, 2)
    perfect = np.eye(len(counts), dtype=np.float32)[gold] * _CONFIDENT
    best, worst = classification_metrics(perfect, gold), classification_metrics(np.roll(perfect, 1, axis=1), gold)
    usable = [name for name in NAMES if np.isfinite(best[name]) and best[name] != worst[name]]
    return [name for name in usable if name != "majority_accuracy"]
