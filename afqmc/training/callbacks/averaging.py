"""Weights that are averages: put them into a model for a while, and compare them with those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from afqmc.training.parallel import full_norm, reshard

Weights = Mapping[str, Tensor]  # by the names of the parameters


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are trained, by name; frozen ones and buffers never differ from their average."""
    reshard(model)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def replaced_weights(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Within this context, the model has these weights. Its own are restored bit for bit."""
    parameters = trained_parameters(model)
    own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        _copy(weights, parameters)
        yield
    finally:
        reshard(model)
        _copy(own, parameters)


def relative_distance(weights: Weights, reference: Weights) -> float:
    """Return ``|weights - reference| / |reference|``, the norms taken over all weights. All processes call it."""
    with torch.no_grad():
        difference = [weights[name] - tensor for name, tensor in reference.items()]
        return float(full_norm(get_total_norm(difference)) / full_norm(get_total_norm(reference.values())))


@torch.no_grad()
def _copy(source: Weights, target: Weights) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
