"""``hydra/sweeper=race``: give seeds to settings until the best one is known."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from afqmc.config import slug
from afqmc.run_dir import Status
from afqmc.sweeps.plan import Job
from afqmc.sweeps.race import RaceConfig, RaceState, decide
from afqmc.sweeps.results_table import RETRYABLE
from afqmc.sweeps.variants import add_variant, check_variants
from afqmc.utils.errors import InputError
from afqmc.utils.files import write_json
from hydra_plugins.afqmc_sweeps._sweep_session import Session
from hydra_plugins.afqmc_sweeps.grid_sweeper import GridSweeper

log = logging.getLogger(__name__)

_RESULT = "race.json"
_FAILED = (*RETRYABLE, Status.refused.value, Status.pruned.value)


class RaceSweeper(GridSweeper):
    """Runs every combination of the given values with more and more seeds, and drops those that are worse.

    Args:
        params: Sweep overrides by key, from a file in conf/sweep; those of the command line take precedence.
        variants: As of ``hydra/sweeper=grid``.
        config: The fields of ``RaceConfig``.
    """

    def __init__(
        self,
        params: dict[str, str] | None = None,
        variants: Mapping[str, Sequence[str]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(params, variants)
        plain: Any = OmegaConf.to_container(OmegaConf.create(config))
        try:
            self.race = RaceConfig(**plain)
        except TypeError as error:
            raise InputError(f"hydra.sweeper: {error}") from error

    def sweep(self, arguments: list[str]) -> Any:
        """Run batches until the race has ended."""
        assert self.hydra_context is not None
        assert self.config is not None
        with Session.open(self.hydra_context, self.task_function, self.config) as session:
            variants = session.variants(self.variants, arguments)
            axes = session.merge_overrides(self.params, arguments, [*variants])
            _check_axes(axes)
            check_variants(variants, [axis.get_key_element() for axis in axes])
            swept = tuple(f"{axis.get_key_element()}=" for axis in axes if axis.is_sweep_override())
            combinations = self.split_arguments(axes, None)[0]
            settings = [
                _Setting([text for text in job if text.startswith(swept)], add_variant(job, variants))
                for job in combinations
            ]
            _check_settings(settings)
            _Race(session, self.race, settings, [str(axis.input_line) for axis in axes]).run()


class _Setting:
    """A setting of a race: the overrides that differ from other settings, and all overrides without the seed."""

    def __init__(self, swept: Sequence[str], overrides: Sequence[str]) -> None:
        self.swept, self.overrides = list(swept), list(overrides)

    @property
    def key(self) -> str:
        """Its overrides without secrets, as the plan stores them."""
        return " ".join(Job(0, "", tuple(self.overrides)).key)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return " ".join(Job(0, "", tuple(self.swept)).redacted_overrides).removeprefix("sweep.variant=")


class _Race:
    """One call of a race."""

    def __init__(self, session: Session, config: RaceConfig, settings: Sequence[_Setting], axes: list[str]) -> None:
        self.session, self.config, self.settings = session, config, settings
        self.metadata: dict[str, Any] = {
            "sweeper": "race",
            "axes": axes,
            "settings": [setting.key for setting in settings],
            "min_seeds": config.min_seeds,  # with other looks or levels, earlier decisions would be invalid
            "max_seeds": config.max_seeds,
            "alpha": config.alpha,
        }

    def run(self) -> None:
        """Run batches until the race has ended. If it is interrupted, the next call resumes it."""
        from afqmc.comparison.race import RaceTests

        session = self.session
        session.check_same_sweep(self.metadata)
        settings = range(len(self.settings))
        first = [self._job(k, 1) for k in settings]
        planned = {job.directory for job in session.jobs}
        jobs = [self._job(k, seed) for seed in range(1, self.config.max_seeds + 1) for k in settings]
        batch = session.remaining([job for job in jobs if job.directory in planned]) if planned else []
        session.check(batch if planned else first)
        self.tests = RaceTests(self._metric(first))
        while self._complete(batch):
            state = self._decide()
            if state.ending is not None:
                self._report(state)
                return
            batch = [self._job(k, seed) for k, seed in state.batch]

    def _complete(self, batch: Sequence[Job]) -> bool:
        """Run jobs, and return whether all have ended; else the race was interrupted."""
        if batch:
            self.session.add(batch, self.metadata)
            self.session.launch(batch)
        return all(self.session.status(job) in (Status.completed.value, *_FAILED) for job in batch)

    def _decide(self) -> RaceState:
        planned = {job.directory for job in self.session.jobs}
        runs: dict[tuple[int, int], bool | None] = {}
        for k in range(len(self.settings)):
            for seed in range(1, self.config.max_seeds + 1):
                job = self._job(k, seed)
                if job.directory in planned:
                    runs[k, seed] = self.session.status(job) == Status.completed.value
                    if runs[k, seed]:
                        self.tests.add(k, seed, self.session.sweep.run_dir(job).path)
        state = decide(self.config, len(self.settings), runs, self.tests.compare)
        if state.ending is None:
            left = len(self.settings) - len(state.dropped.keys() | state.failed.keys())
            log.info("settings left: %d; next runs: %d", left, len(state.batch))
        return state

    def _job(self, k: int, seed: int) -> Job:
        """Return the run of a setting with a seed; its number depends on nothing else."""
        number, setting = (seed - 1) * len(self.settings) + k, self.settings[k]
        return Job(number, f"{number}-{slug([*setting.swept, f'seed={seed}'])}", (*setting.overrides, f"seed={seed}"))

    def _metric(self, jobs: Sequence[Job]) -> str:
        """Return the metric by which all settings are compared.

        Raises:
            InputError: If they have different ones, or are pretrained.
        """
        configs = [self.session.compose(job) for job in jobs]
        if any(config.masking.unit is not None for config in configs):
            raise InputError("hydra/sweeper=race: not with afqmc.pretrain, whose runs predict no pairs")
        metrics = sorted({config.trainer.monitor for config in configs})
        if len(metrics) > 1:
            raise InputError(f"hydra/sweeper=race: the settings have different trainer.monitor: {', '.join(metrics)}")
        return metrics[0]

    def _report(self, state: RaceState) -> None:
        """Log one sentence per setting and the conclusion, and write them to race.json."""
        from afqmc.comparison.race import conclusion, verdicts

        names = [setting.name for setting in self.settings]
        rows = verdicts(self.tests, self.config, names, state)
        sentences = conclusion(self.config, names, state)
        for row in rows:
            log.info("%s", row["sentence"])
        for sentence in sentences:
            log.info("%s", sentence)
        path = self.session.sweep.path
        log.info("compare: python -m afqmc.compare %s", path)
        write_json(path / _RESULT, {"conclusion": sentences, "metric": self.tests.metric, "settings": rows})


def _check_axes(axes: Sequence[Override]) -> None:
    """Check that the seed, which a race gives out, is not set; and that folds are not compared.

    Raises:
        InputError: If it is.
    """
    for axis in axes:
        if axis.get_key_element() == "seed":
            raise InputError(
                f"{axis.input_line}: a race gives the seeds 1 to hydra.sweeper.max_seeds itself; remove this override"
            )
        if axis.get_key_element() == "dataset.fold" and axis.is_sweep_override():
            raise InputError(f"{axis.input_line}: a race compares settings on the same dev pairs; give a single fold")


def _check_settings(settings: Sequence[_Setting]) -> None:
    """Check that there are several settings, all different.

    Raises:
        InputError: If not.
    """
    if len(settings) < 2:
        raise InputError("hydra/sweeper=race: there is only one setting; give several values, such as lr=1e-5,2e-5")
    keys = [setting.key for setting in settings]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise InputError(f"hydra/sweeper=race: {settings[index].name}: is given twice")
