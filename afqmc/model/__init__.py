"""Encoder, pooling and head: pairs of sentences to one logit a class."""
