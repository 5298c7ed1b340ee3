"""Pairs to tensors: tokens in flat arrays, made once and kept; batches are slices of them."""
