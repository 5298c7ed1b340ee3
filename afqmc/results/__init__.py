"""Run directories read back: runs, settings, prediction tables and ensembles."""
