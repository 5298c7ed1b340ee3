"""The metrics there are, under the names this project writes; importing it costs nothing."""

NAMES = (
    "loss", "accuracy", "majority_accuracy", "precision", "recall", "f1", "auc", "average_precision", "mcc",
)  # fmt: skip
