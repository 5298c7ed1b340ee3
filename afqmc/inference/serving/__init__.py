"""The HTTP service of ``afqmc serve``: batching, limits, access, metrics and the page."""
