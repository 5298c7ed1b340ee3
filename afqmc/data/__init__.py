"""Data: files to pairs, token arrays and batches, with folds and quality checks."""
