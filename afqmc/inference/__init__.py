"""Predictions of finished runs: the predictor, its input files and its output formats."""
