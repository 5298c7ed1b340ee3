"""Fine-tune encoders on sentence pairs: one Hydra-composed run, one directory that tells all about it."""

__version__ = "0.1.0"
