"""Searches by Optuna: a space, a study of it, and what a running job tells the study."""
