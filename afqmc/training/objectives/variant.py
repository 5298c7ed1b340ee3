"""Common parts of the objectives that change cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward
from afqmc.training.objectives.cross_entropy import CrossEntropy


class WindowMeans:
    """Means over the pairs since the last report.

    Sums stay on their device until a report reads them, so that no step waits for a GPU. With several processes, the
    means are those of this process's share.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._pairs = 0

    def add(self, pairs: int, **sums: Tensor) -> None:
        """Add values summed over a number of pairs, by name; scalars."""
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._pairs += pairs

    def report(self) -> dict[str, float]:
        """Return the means, and start again."""
        means = {name: float(value) / self._pairs for name, value in self._sums.items()}
        self._sums, self._pairs = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the number of pairs."""
        return {"sums": dict(self._sums), "pairs": self._pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._sums, self._pairs = dict(state["sums"]), state["pairs"]


class CrossEntropyVariant(CrossEntropy):
    """Base class of objectives that change cross-entropy. One that is off is cross-entropy, bit for bit.

    A subclass implements ``is_off`` and ``loss``, and adds to ``means`` what shows that it is active.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights, label_counts, device)
        self.means = WindowMeans()

    @property
    def is_off(self) -> bool:
        """Whether its arguments make it equal to cross-entropy."""
        raise NotImplementedError

    def loss(self, model: Forward, microbatch: Batch, labels: Tensor) -> Tensor:
        """Return the loss summed over the pairs of a microbatch with labels (B,)."""
        raise NotImplementedError

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the loss summed over the pairs of a microbatch."""
        if self.is_off:
            return super().__call__(model, microbatch)
        assert microbatch.labels is not None
        return self.loss(model, microbatch, microbatch.labels)

    def report(self) -> dict[str, float]:
        """Return the means since the last call."""
        return self.means.report()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last report."""
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.means.load_state_dict(state)
