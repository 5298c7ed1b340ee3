"""What a search draws for each of its trials, and the runs that a trial is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override

from afqmc.config import slug
from afqmc.sweeps.plan import Job
from afqmc.sweeps.search_space import Dimension, boundary_trials, suggested
from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._override_grammar import axis_of

if TYPE_CHECKING:
    from optuna.trial import Trial

_REPEATED = ("seed", "dataset.fold")  # the best of them is luck: a setting is the mean over all


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        axes: Drawn for each trial.
        repetitions: Overrides of each run of a trial, such as its seed; one without any where it is a single run.
        fixed: Overrides of all.
    """

    axes: list[Dimension]
    repetitions: list[tuple[str, ...]]
    fixed: list[str]

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> Space:
        """From Hydra's grammar.

        Raises:
            InputError: naming the override that is no axis, or when there is none.
        """
        swept = [override for override in overrides if override.is_sweep_override()]
        axes = [axis_of(override) for override in swept if override.get_key_element() not in _REPEATED]
        repeated = [_values(override) for override in swept if override.get_key_element() in _REPEATED]
        if not axes:
            raise InputError("hydra/sweeper=optuna: nothing to search; as in lr=tag(log,interval(1e-6,1e-4))")
        fixed = [
            f"{override.get_key_element()}={override.get_value_element_as_str()}"
            for override in overrides
            if not override.is_sweep_override()
        ]
        return cls(axes, list(product(*repeated)), fixed)

    def about(self) -> dict[str, Any]:
        """For the plan: what must not change when the search goes on, besides the axes."""
        again = [" ".join(one) for one in self.repetitions]
        return {"fixed": list(Job(0, "", tuple(self.fixed)).identity), "repetitions": again}

    def probes(self) -> list[Job]:
        """Jobs, not to be run, in which every end of every axis and every repetition occurs."""
        ends, repetitions = boundary_trials(self.axes), self.repetitions
        tried = [(one, repetitions[0]) for one in ends] + [(ends[0], again) for again in repetitions[1:]]
        return [Job(place, "probe", (*self.fixed, *one, *again)) for place, (one, again) in enumerate(tried)]

    def jobs(self, trial: Trial) -> list[Job]:
        """The runs of a trial; their number is its number."""
        overrides, number = (*self.fixed, *suggested(trial, self.axes)), trial.number
        name = f"{number}-{slug([f'{key}={short(value)}' for key, value in trial.params.items()])}"
        if len(self.repetitions) == 1:
            return [Job(number, name, (*overrides, *self.repetitions[0]))]
        return [Job(number, f"{name}_{slug(list(again))}", (*overrides, *again)) for again in self.repetitions]


def short(value: Any) -> str:
    """Three digits are enough to tell a directory by."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _values(override: Override) -> list[str]:
    """``seed=1,2,3`` as overrides of one run each."""
    if isinstance(override.value(), IntervalSweep):
        raise InputError(f"{override.input_line}: is repeated, not searched; name the values: seed=1,2,3")
    found = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if len(set(found)) < len(found):
        raise InputError(f"{override.input_line}: each once")
    return found
