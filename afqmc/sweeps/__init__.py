"""Sweeps and searches: plan, results table, search space, study and pruning."""
