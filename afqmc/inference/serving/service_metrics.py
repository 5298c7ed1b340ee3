"""Metrics in the format of Prometheus. With several workers, each writes files to a directory, and all are summed."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """The metrics of one worker.

    Args:
        directory: Shared by all workers (``PROMETHEUS_MULTIPROC_DIR``); None for a single one.
    """

    def __init__(self, directory: str | None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second time series for each
        self._directory = directory
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("afqmc_requests", "Requests by path and status", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "afqmc_request_seconds", "Seconds from request to answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self.pairs = Counter("afqmc_pairs", "Predicted pairs", registry=registry)
        self.batch_pairs = Histogram("afqmc_batch_pairs", "Pairs per batch", buckets=_PAIRS, registry=registry)
        self.batch_seconds = Histogram(
            "afqmc_batch_seconds", "Seconds of the model per batch", buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "afqmc_waiting_pairs",
            "Pairs in the queue after the last batch",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def on_batch(self, pairs: int, seconds: float, waiting: int) -> None:
        """Count a batch, after which ``waiting`` pairs are in the queue."""
        self.pairs.inc(pairs)
        self.batch_pairs.observe(pairs)
        self.batch_seconds.observe(seconds)
        self.waiting.set(waiting)

    def text(self) -> bytes:
        """Return the metrics of all workers."""
        if self._directory is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
