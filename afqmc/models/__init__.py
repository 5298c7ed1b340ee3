"""Models: the cross-encoder, loading from the hub or from a directory, and CPU kernels."""
