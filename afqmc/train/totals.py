"""What the steps of a run have worked through."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.train.events import Stepped


@dataclass
class Totals:
    """Counted so far."""

    padding_free: bool
    pairs: int = 0
    tokens: int = 0
    places: int = 0  # tokens and padding
    seconds: float = 0.0

    def add(self, event: Stepped) -> None:
        """Count a step."""
        self.pairs += len(event.batch)
        self.tokens += event.batch.tokens
        self.places += event.batch.tokens if self.padding_free else event.batch.places
        self.seconds += event.seconds
