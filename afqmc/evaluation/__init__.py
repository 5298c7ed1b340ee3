"""Evaluation of a model on a split: logits, metrics and prediction rows."""
