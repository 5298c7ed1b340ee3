"""Comparison of runs: significance tests, caveats, wording, and the outputs (terminal, files, HTML page, W&B)."""
