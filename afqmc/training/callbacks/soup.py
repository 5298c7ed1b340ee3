"""Soup: the average of the weights of the best evaluations (Wortsman et al. 2022, arXiv:2203.05482)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.callbacks.averaging import Weights, relative_distance, replaced_weights, trained_parameters
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import EvaluationEnd
from afqmc.training.parallel import gather_full, shard_like
from afqmc.training.state import improves
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)


class Recipe(Enum):
    """How the weights to average are chosen."""

    uniform = "uniform"
    greedy = "greedy"


@dataclass
class Ingredient:
    """The weights of an evaluation.

    Attributes:
        step: Optimizer steps taken.
        value: The monitored metric.
        weights: Full weights by parameter name, on the CPU.
    """

    step: int
    value: float
    weights: dict[str, Tensor]


class Soup(Callback):
    """Averages, at the end, the weights of the k evaluations that are best on dev, and saves the average as the best.

    The paper averages models of several runs; here they are of one run. ``uniform`` averages all k, and keeps the
    average even if it is worse than the best of them. ``greedy`` (recipe 1 of the paper) starts with the best. From the
    second best on, it adds each that does not make the average worse on dev. It is therefore never worse than the best
    on dev, but its result on dev is too good: dev has chosen it.

    The weights are those that were evaluated: with ``callbacks=[ema,soup]`` they are averages themselves. They are on
    the CPU of each process, and in ``checkpoints/last``: k times the size of the trained weights. Frozen weights and
    buffers are those of the last step. Of an adapter that is merged when it is saved, the adapter's own weights are
    averaged.

    Args:
        k: Evaluations to keep, >= 1. 1 switches the callback off.
        recipe: ``uniform`` or ``greedy``.

    Raises:
        ValueError: for an invalid argument.
    """

    def __init__(self, k: int = 3, recipe: str = "uniform") -> None:
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k}: must be a whole number >= 1")
        if recipe not in Recipe.__members__:
            raise ValueError(f"recipe={recipe}: must be uniform or greedy")
        self.k, self.recipe = k, Recipe[recipe]
        self._kept: list[Ingredient] = []  # the best first
        self._report: dict[str, float] = {}

    @property
    def is_off(self) -> bool:
        """Whether the soup is always the best weights."""
        return self.k == 1

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Check that there are several evaluations.

        Raises:
            InputError: if there is only one.
        """
        if trainer.intervals.evaluate >= trainer.intervals.total:
            raise InputError(
                "callbacks.soup: this run has one evaluation, and needs at least 2; lower trainer.eval_steps"
            )

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Keep the weights if they are among the best k."""
        best = trainer.state.best
        value = event.evaluation.metrics[best.monitor]
        if math.isnan(value):
            return
        rank = sum(not improves(value, other.value, best.higher_is_better) for other in self._kept)
        if rank < self.k:
            weights = {
                name: gather_full(parameter.detach()).to("cpu", copy=True)
                for name, parameter in trained_parameters(trainer.model).items()
            }
            self._kept.insert(rank, Ingredient(event.step, value, weights))
            del self._kept[self.k :]

    def on_train_end(self, trainer: TrainerView) -> None:
        """Average the weights, and keep the average as the best."""
        if len(self._kept) < 2:
            return
        chosen = self._kept if self.recipe is Recipe.uniform else self._choose(trainer)
        soup, best, monitor = average(chosen), self._kept[0], trainer.state.best.monitor
        with replaced_weights(trainer.model, _sharded(soup, trainer.model)):
            evaluation = trainer.evaluate()
            trainer.keep_as_best(evaluation)
        value = evaluation.metrics[monitor]
        self._report = {
            "ingredients": len(chosen),
            "distance": relative_distance(soup, best.weights),
            f"best_single_{monitor}": best.value,
            f"soup_{monitor}": value,
        }
        log.info(
            "soup: weights of steps %s; dev/%s is %.4f, and %.4f with the best single weights",
            ", ".join(str(ingredient.step) for ingredient in chosen), monitor, value, best.value,
        )  # fmt: skip
        if self.recipe is Recipe.greedy:
            self._report["selected_on_dev"] = 1.0
            log.info("soup: dev has chosen these weights, so their result on dev is too good; compare on other data")

    def _choose(self, trainer: TrainerView) -> list[Ingredient]:
        """Return the ingredients of the greedy soup."""
        best = trainer.state.best
        chosen, value = self._kept[:1], self._kept[0].value
        for candidate in self._kept[1:]:
            new = self._evaluate(trainer, [*chosen, candidate]).metrics[best.monitor]
            if not improves(value, new, best.higher_is_better):
                chosen, value = [*chosen, candidate], new
        return chosen

    def _evaluate(self, trainer: TrainerView, ingredients: list[Ingredient]) -> Evaluation:
        with replaced_weights(trainer.model, _sharded(average(ingredients), trainer.model)):
            return trainer.evaluate()

    def report(self) -> dict[str, float]:
        """Return, at the end, the number of ingredients, the relative distance from the best, and both results."""
        return self._report

    def state_dict(self) -> dict[str, Any]:
        """Return the weights that are kept."""
        return {"kept": [vars(ingredient) for ingredient in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._kept = [Ingredient(**fields) for fields in state["kept"]]


def average(ingredients: list[Ingredient]) -> dict[str, Tensor]:
    """Return the mean of each weight, on the CPU."""
    names = ingredients[0].weights
    return {name: torch.stack([ingredient.weights[name] for ingredient in ingredients]).mean(0) for name in names}


def _sharded(weights: Weights, model: nn.Module) -> dict[str, Tensor]:
    return {name: shard_like(weights[name], parameter) for name, parameter in trained_parameters(model).items()}
