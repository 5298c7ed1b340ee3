"""The checks that a run, the doctor and the check before a sweep make alike: one sequence, cheapest first."""

from __future__ import annotations

from typing import Optional

from afqmc.config import Config
from afqmc.dataset.config import Batching
from afqmc.dataset.splits import Dataset
from afqmc.model.load import check_plugged_in as check_model
from afqmc.optim import check_plugged_in as check_optimizer
from afqmc.ranks import Rank
from afqmc.train.config import check_class_weights
from afqmc.train.division import check_processes, divided
from afqmc.train.graphs import check_graphs
from afqmc.train.hardware import Choice, choose


def validate_config(config: Config, rank: Rank) -> Choice:
    """Check everything that needs neither data nor weights; returns the device and precision.

    Args:
        config: Of the run.
        rank: The process that asks; its ``size`` is the number of processes that the run will have.

    Raises:
        InputError: naming the key, its value and what is legal.
    """
    check_optimizer(config.optimizer, config.scheduler, config.lr)
    check_model(config.model)
    choice = choose(config.trainer)
    check_processes(config.trainer, rank, choice.device)
    if not rank.is_alone and config.dataset.batching is not Batching.tokens:
        divided(config.batch_size, config.trainer, rank)
    check_graphs(config.trainer, choice)
    return choice


def validate_against_data(config: Config, data: Dataset) -> None:
    """Check the config against the data, before a model is built.

    Raises:
        InputError: naming the key, its value and what is legal.
    """
    check_class_weights(config.trainer.class_weights, len(data.labels))
    if steps := total_steps(config, data):
        check_optimizer(config.optimizer, config.scheduler, config.lr, steps)


def total_steps(config: Config, data: Dataset) -> Optional[int]:
    """Optimizer steps of the run; None where that depends on how long the pairs are in tokens."""
    if config.trainer.max_steps is not None:
        return config.trainer.max_steps
    if config.dataset.batching is Batching.tokens:
        return None
    return config.epochs * -(-len(data.train) // config.batch_size)
