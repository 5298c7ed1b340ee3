"""Custom parameter groups: another learning rate for the linear layer on top."""

from __future__ import annotations

from typing import Any

from torch import nn

from afqmc.training.parameter_groups import no_decay_for_vectors


def head_lr(model: nn.Module, lr: float, with_decay: bool, factor: float = 10.0) -> list[dict[str, Any]]:
    """Return the default groups, each divided into encoder and head.

    Args:
        model: A cross-encoder: ``encoder`` and a head.
        lr: Peak learning rate of the encoder.
        with_decay: Whether the optimizer has a weight decay.
        factor: Of the head's learning rate.
    """
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups = []
    for group in no_decay_for_vectors(model, with_decay):
        for of_head in (False, True):
            params = [parameter for parameter in group["params"] if (id(parameter) not in encoder) == of_head]
            groups.append({**group, "params": params, "lr": lr * factor if of_head else lr})
    return groups
