"""Test the settings of a race, whose seeds are given out while it runs, and report its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.comparison.bootstrap import Resampled, resample
from afqmc.comparison.evaluations import EvaluationCounts, choice_corrections
from afqmc.comparison.pairwise import Difference, PairwiseTests
from afqmc.comparison.wording import format_difference, format_p
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import Array, drawable_groups
from afqmc.results.runs import Run, read_run
from afqmc.results.settings import Setting
from afqmc.sweeps.race import Ending, Look, RaceConfig, RaceState
from afqmc.utils.errors import InputError
from afqmc.utils.language import msg


class SequentialTests(PairwiseTests):
    """Tests at one look of a race, whose intervals have the level of this look instead of 5%.

    They are repeated confidence intervals (Jennison and Turnbull 1989): all intervals of all looks hold together.

    Attributes:
        corrections: What is subtracted from the mean of each setting, (K,).
    """

    def __init__(self, resampled: Resampled, setting: Sequence[int], level: float, corrections: Array | None) -> None:
        """Test the settings.

        Args:
            resampled: Metric of each run, on all examples and on resamples.
            setting: The index of each run's setting, from 0.
            level: Of the p-value of each pair.
            corrections: Subtracted from the mean of each setting in differences, (K,).
        """
        self.level = level
        super().__init__(resampled, setting, corrections=corrections)
        self.corrections = np.zeros(len(self.means)) if corrections is None else corrections

    @property
    def _alpha(self) -> float:
        return self.level


class RaceTests:
    """Tests of the settings of a race by their first seeds.

    Args:
        metric: As ``split/name``.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._runs: dict[tuple[int, int], tuple[Run, Resampled]] = {}
        self._first: Predictions | None = None

    def add(self, setting: int, seed: int, path: Path) -> None:
        """Read a completed run, unless it was read before.

        Raises:
            InputError: If its predictions cannot be read, or are of other examples than those of the other runs.
        """
        if (setting, seed) in self._runs:
            return
        run = read_run(path, path.name)
        predictions = Predictions.of(run, self.metric)
        self._first = self._first or predictions
        if how := self._first.differs_from(predictions):
            raise InputError(msg("{path}: has other dev pairs than the other runs: {how}", path=path, how=how))
        name = self.metric.partition("/")[2]
        self._runs[setting, seed] = (
            run,
            resample(name, [predictions.answers], groups=drawable_groups(predictions.rows.groups)),
        )

    def compare(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Return p-values (K, K), and means (K,) of which a larger one is better.

        Args:
            seeds: How many of the first seeds of each setting count; 0 leaves a setting out, (K,).
        """
        tests, included = self._tests(seeds, level=1.0)
        p, means = np.ones((len(seeds), len(seeds))), np.full(len(seeds), -np.inf)
        p[np.ix_(included, included)] = tests.p
        sign = 1 if higher_is_better(self.metric) else -1
        means[included] = sign * (tests.means - tests.corrections)
        return p, means

    def difference(self, look: Look, seeds: Sequence[int]) -> Difference:
        """Return ``look.other`` minus ``look.setting`` at a look; ``seeds`` as in ``compare``."""
        tests, included = self._tests(seeds, look.level)
        return tests.difference(included.index(look.other), included.index(look.setting))

    def _tests(self, seeds: Sequence[int], level: float) -> tuple[SequentialTests, list[int]]:
        """Return the tests, and the settings that they have."""
        included = [k for k, count in enumerate(seeds) if count]
        groups = [[self._runs[k, seed] for seed in range(1, seeds[k] + 1)] for k in included]
        parts = [resampled for group in groups for _, resampled in group]
        resampled = Resampled(
            values=np.concatenate([part.values for part in parts]),
            draws=np.concatenate([part.draws for part in parts], axis=1),
            examples=parts[0].examples,
            units=parts[0].units,
        )
        index = [position for position, group in enumerate(groups) for _ in group]
        tests = SequentialTests(resampled, index, level, None)
        evaluations = [
            EvaluationCounts.of(Setting("", {}, tuple(run for run, _ in group)), self.metric) for group in groups
        ]
        corrections = choice_corrections(evaluations, tests.run_variance, higher_is_better(self.metric))
        if corrections is not None:
            tests = SequentialTests(resampled, index, level, corrections)
        return tests, included


def verdicts(tests: RaceTests, config: RaceConfig, names: Sequence[str], state: RaceState) -> list[dict[str, Any]]:
    """Return one row per setting, the best first: its name, verdict, number of seeds, mean and sentence.

    Args:
        tests: Of the race.
        config: Of the race.
        names: Of the settings.
        state: At the end of the race.
    """
    seeds = state.seeds
    means = tests.compare(seeds)[1] if any(seeds) else np.full(len(names), -np.inf)
    sign = 1 if higher_is_better(tests.metric) else -1
    kept = [k for k in range(len(names)) if k not in state.dropped and k not in state.failed]
    failed = [k for k in state.failed if k not in state.dropped]

    def describe(look: Look) -> tuple[str, str]:
        difference = tests.difference(look, [min(look.seeds, count) for count in seeds])
        size, interval, _ = format_difference(difference, tests.metric)
        pairs = len(names) * (len(names) - 1) // 2
        details = msg(
            "{confidence}% CI {interval}, {p}, required: at most {level}",
            confidence=f"{100 * (1 - config.alpha):g}",
            interval=interval,
            p=format_p(min(look.p * pairs, 1.0)),
            level=f"{look.level * pairs:.2g}",
        )
        return size, details

    def sentence(k: int) -> str:
        values = {"name": names[k], "seeds": seeds[k]}
        if k in state.dropped:
            look = state.dropped[k]
            size, details = describe(look)
            values |= {"seeds": look.seeds, "other": names[look.other], "size": size, "details": details}
            return msg("{name}: dropped after {seeds} seeds: worse than {other} by {size} ({details})", **values)
        if k in state.failed:
            values |= {"seed": state.failed[k]}
            return msg("{name}: not decided, since seed {seed} failed; sweep.retry_failed=true reruns it", **values)
        if k == state.best:
            return msg(
                "{name}: kept, the best after {seeds} seeds: {metric} {mean}",
                metric=tests.metric,
                mean=f"{sign * means[k]:.4f}",
                **values,
            )
        if k not in state.last:
            return msg("{name}: kept after {seeds} seeds: not compared with the best one yet", **values)
        size, details = describe(state.last[k])
        values |= {"other": names[state.last[k].other], "size": size, "details": details}
        return msg(
            "{name}: kept after {seeds} seeds: cannot be told apart from {other}: behind by {size} ({details})",
            **values,
        )

    order = sorted(range(len(names)), key=lambda k: (k in state.dropped, k in failed, k != state.best, -means[k]))
    return [
        {
            "setting": names[k],
            "verdict": "kept" if k in kept else "failed" if k in failed else "dropped",
            "seeds": seeds[k],
            tests.metric: float(sign * means[k]) if seeds[k] else None,
            "sentence": str(sentence(k)),
        }
        for k in order
    ]


def conclusion(config: RaceConfig, names: Sequence[str], state: RaceState) -> list[str]:
    """Return why the race has ended, and what is known about the settings that are left."""
    kept = [name for k, name in enumerate(names) if k not in state.dropped and k not in state.failed]
    reasons = {
        Ending.one_left: lambda: msg("the race has ended: {name} is better than all other settings", name=kept[0]),
        Ending.max_seeds: lambda: msg(
            "the race has ended: {count} settings have {seeds} seeds and cannot be told apart",
            count=len(kept),
            seeds=config.max_seeds,
        ),
        Ending.max_runs: lambda: msg(
            "the race has ended: hydra.sweeper.max_runs={max_runs} runs are used up, with {count} settings left; a "
            "larger number continues it",
            max_runs=config.max_runs,
            count=len(kept),
        ),
        Ending.failed: lambda: msg("the race has ended early, since runs have failed"),
    }
    assert state.ending is not None
    sentences: list[str] = [reasons[state.ending]()]
    if state.dropped:
        sentences.append(
            msg(
                "with a probability of at least {confidence}%, every dropped setting is worse than another one also "
                "with other seeds and other dev pairs, so that the best one is not among them",
                confidence=f"{100 * (1 - config.alpha):g}",
            )
        )
    return sentences
