"""The metrics there are, under the names this project writes; importing it costs nothing."""

NAMES = (
    "loss", "accuracy", "majority_accuracy", "precision", "recall", "f1", "auc", "average_precision", "mcc",
)  # fmt: skip


def higher_is_better(metric: str) -> bool:
    """The direction of a metric such as ``dev/accuracy`` or ``loss``."""
    return not metric.endswith("loss")
