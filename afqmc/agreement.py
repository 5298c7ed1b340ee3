"""What a config and its data must agree on, before a model is built."""

from __future__ import annotations

from typing import Optional

from afqmc.config import Config
from afqmc.dataset.config import Batching
from afqmc.dataset.splits import Dataset
from afqmc.optim import check_plugged_in
from afqmc.train.config import check_class_weights


def total_steps(config: Config, data: Dataset) -> Optional[int]:
    """Optimizer steps of the run; None where that depends on how long the pairs are in tokens."""
    if config.trainer.max_steps is not None:
        return config.trainer.max_steps
    if config.dataset.batching is Batching.tokens:
        return None
    return config.epochs * -(-len(data.train) // config.batch_size)


def check_agreement(config: Config, data: Dataset) -> None:
    """Hold class weights to the classes, and the schedule to the steps there are.

    Raises:
        InputError: naming the key, what was found and what is legal.
    """
    check_class_weights(config.trainer.class_weights, len(data.labels))
    if steps := total_steps(config, data):
        check_plugged_in(config.optimizer, config.scheduler, config.lr, steps)
