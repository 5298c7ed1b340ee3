"""The search space given by Hydra overrides, and the jobs of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override

from afqmc.config import slug
from afqmc.sweeps.plan import Job
from afqmc.sweeps.search_space import Dimension, boundary_trials, suggest_overrides
from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._override_grammar import parse_dimension

if TYPE_CHECKING:
    from optuna.trial import Trial

# not searched, as the best seed is luck: a setting is scored by its mean over them
_REPEATED = ("seed", "dataset.fold")


@dataclass(frozen=True)
class Space:
    """The search space.

    Attributes:
        dimensions: The parameters sampled for each trial.
        repetitions: Overrides of each run of a trial, such as its seed; one empty tuple if a trial is a single run.
        fixed: Overrides of all runs.
    """

    dimensions: list[Dimension]
    repetitions: list[tuple[str, ...]]
    fixed: list[str]

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> Space:
        """Build the space from Hydra overrides.

        Raises:
            InputError: If a sweep override is invalid, or there is none.
        """
        swept = [override for override in overrides if override.is_sweep_override()]
        dimensions = [parse_dimension(override) for override in swept if override.get_key_element() not in _REPEATED]
        repeated = [_values(override) for override in swept if override.get_key_element() in _REPEATED]
        if not dimensions:
            raise InputError(
                "hydra/sweeper=optuna: nothing to search; give a range, such as lr=tag(log,interval(1e-6,1e-4))"
            )
        fixed = [
            f"{override.get_key_element()}={override.get_value_element_as_str()}"
            for override in overrides
            if not override.is_sweep_override()
        ]
        return cls(dimensions, list(product(*repeated)), fixed)

    def metadata(self) -> dict[str, Any]:
        """Return what the plan stores and must not change when the search is resumed."""
        repetitions = [" ".join(overrides) for overrides in self.repetitions]
        return {"fixed": list(Job(0, "", tuple(self.fixed)).key), "repetitions": repetitions}

    def probes(self) -> list[Job]:
        """Return jobs to check but not to run, which contain all bounds of all dimensions and all repetitions."""
        bounds, repetitions = boundary_trials(self.dimensions), self.repetitions
        cases = [(trial, repetitions[0]) for trial in bounds] + [(bounds[0], again) for again in repetitions[1:]]
        return [Job(index, "probe", (*self.fixed, *trial, *again)) for index, (trial, again) in enumerate(cases)]

    def jobs(self, trial: Trial) -> list[Job]:
        """Return the jobs of a trial, one per repetition; their number is the trial's."""
        overrides, number = (*self.fixed, *suggest_overrides(trial, self.dimensions)), trial.number
        name = f"{number}-{slug([f'{key}={format_short(value)}' for key, value in trial.params.items()])}"
        if len(self.repetitions) == 1:
            return [Job(number, name, (*overrides, *self.repetitions[0]))]
        return [Job(number, f"{name}_{slug(list(again))}", (*overrides, *again)) for again in self.repetitions]


def format_short(value: Any) -> str:
    """Format a value with three digits, for names and messages."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _values(override: Override) -> list[str]:
    """Return the single-value overrides of ``seed=1,2,3``."""
    if isinstance(override.value(), IntervalSweep):
        raise InputError(f"{override.input_line}: is repeated, not searched; list the values: seed=1,2,3")
    overrides = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if len(set(overrides)) < len(overrides):
        raise InputError(f"{override.input_line}: give each value once")
    return overrides
