"""Who else is told about a run: Weights & Biases, or nobody. Nothing that a tracker does stops or slows a run."""
