"""Names of the metrics. A module of its own, so that reading them does not import numpy or scikit-learn."""

NAMES = (
    "loss", "accuracy", "majority_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "mcc",
    "brier", "ece",
)  # fmt: skip
DECIDED_NAMES = (  # with the threshold and the calibrated probabilities of a decision
    "accuracy_decided", "precision_decided", "recall_decided", "f1_decided", "mcc_decided",
    "nll_calibrated", "brier_calibrated", "ece_calibrated",
)  # fmt: skip
MASKED_LM_NAMES = ("loss", "masked_accuracy", "perplexity")  # of afqmc pretrain
_LOWER_IS_BETTER = ("loss", "nll", "brier", "ece", "cost")


def higher_is_better(metric: str) -> bool:
    """Return whether higher values of a metric such as ``dev/accuracy`` are better."""
    return metric.rpartition("/")[2].removesuffix("_calibrated").removesuffix("_decided") not in _LOWER_IS_BETTER
