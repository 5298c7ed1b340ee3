"""Evaluates and saves the averaged weights of optimizers that keep them, such as schedule-free ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.parallel import full_norm


def keeps_averaged_weights(optimizer: Optimizer) -> bool:
    """Return whether the optimizer has the methods ``train`` and ``eval``, which switch between two sets of weights."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


class AveragedWeights(Callback):
    """Switches an optimizer to its averaged weights for evaluations.

    Schedule-free optimizers (Defazio et al. 2024, arXiv:2405.15682) compute gradients at weights y, and keep an average
    x to evaluate and save. Afterwards the weights y are copied back, since the optimizer's own way
    back rounds: an evaluation changes no bit of the training, and a checkpoint to resume from always has y.

    Args:
        optimizer: With methods ``train`` and ``eval``, without Accelerate's wrapper.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer: Any = optimizer
        self.distance = 0.0

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Switch to the weights to train."""
        self.optimizer.train()

    @contextmanager
    def evaluation_weights(self, model: nn.Module) -> Iterator[None]:
        """Switch to the averaged weights; switch back on exit."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        with torch.no_grad():
            trained = [parameter.clone() for parameter in parameters]
            self.optimizer.eval()
            squares = [
                full_norm(torch.linalg.vector_norm(average - weights)) ** 2
                for average, weights in zip(parameters, trained, strict=True)
            ]
        self.distance = float(torch.stack(squares).sum().sqrt())
        try:
            yield
        finally:
            self.optimizer.train()
            with torch.no_grad():
                for parameter, weights in zip(parameters, trained, strict=True):
                    parameter.copy_(weights)

    def report(self) -> dict[str, float]:
        """Return the distance (Euclidean norm) between averaged and trained weights at the last evaluation."""
        return {"average_distance": self.distance}

    def state_dict(self) -> dict[str, Any]:
        """Return the distance. The weights are in the optimizer's state."""
        return {"distance": self.distance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.distance = state["distance"]
