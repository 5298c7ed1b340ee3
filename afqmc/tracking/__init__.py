"""Experiment trackers (W&B or none). Tracker failures never stop or slow a run."""
