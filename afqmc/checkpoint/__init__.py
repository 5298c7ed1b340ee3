"""Checkpoints: atomic directories, resume state, weights, and checks of untrusted checkpoints."""
