"""Builds the objective that a config names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from afqmc.training.objectives.base import Objective
from afqmc.utils.errors import InputError
from afqmc.utils.targets import instantiate

_EXAMPLE = "afqmc.training.objectives.cross_entropy.CrossEntropy"


def build_objective(
    config: Mapping[str, Any], label_counts: Sequence[int], device: torch.device | None = None
) -> Objective:
    """Build the ``objective`` group.

    Args:
        config: ``_target_`` and its arguments.
        label_counts: Training pairs per class (C,).
        device: Where the loss is computed.

    Raises:
        InputError: naming the argument that the target does not have or rejects.
    """
    objective: Objective = instantiate(config, "objective", _EXAMPLE, {"label_counts": label_counts, "device": device})
    if not callable(objective) or not callable(getattr(objective, "normalizer", None)):
        raise InputError(
            f"objective._target_={config['_target_']}: is not an objective; it needs normalizer(batch) and "
            "__call__(model, microbatch), as in afqmc.training.objectives.base"
        )
    return objective
