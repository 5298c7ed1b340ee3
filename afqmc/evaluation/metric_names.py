"""Names of the metrics. A module of its own, so that reading them does not import numpy or scikit-learn."""

NAMES = ("loss", "accuracy", "majority_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "mcc")
MASKED_LM_NAMES = ("loss", "masked_accuracy", "perplexity")  # of afqmc pretrain


def higher_is_better(metric: str) -> bool:
    """Return whether higher values of a metric such as ``dev/accuracy`` are better."""
    return not metric.endswith("loss")
