"""A model in a line."""

from __future__ import annotations

from torch import nn

from afqmc.model.config import ModelConfig


def name_of(config: ModelConfig) -> str:
    """What to call it."""
    name = config._target_ or config.name_or_path or "BERT"
    return f"{name} from random weights" if config.from_scratch and not config._target_ else name


def count_parameters(model: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
