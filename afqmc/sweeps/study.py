"""Settings of a search, and its Optuna study with sampler, pruner and storage."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

from afqmc.sweeps.search_space import Dimension
from afqmc.utils.errors import InputError, as_input_error, did_you_mean, first_line
from afqmc.utils.files import write_text
from afqmc.utils.safe_files import SMALL, check_regular, read_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

SAMPLERS = {
    "tpe": "TPESampler", "cmaes": "CmaEsSampler", "random": "RandomSampler", "gp": "GPSampler",
    "nsgaii": "NSGAIISampler", "grid": "GridSampler",
}  # fmt: skip
PRUNERS = {
    "none": "NopPruner", "hyperband": "HyperbandPruner", "successive_halving": "SuccessiveHalvingPruner",
    "median": "MedianPruner", "wilcoxon": "WilcoxonPruner",
}  # fmt: skip
OPTUNA_SWEEPER = "hydra_plugins.afqmc_sweeps.optuna_sweeper.OptunaSweeper"  # the _target_ of hydra/sweeper=optuna
_MINIMIZED = ("total_seconds", "train_seconds", "peak_memory_gib", "parameters")
_MAXIMIZED = ("train_pairs_per_second",)
_JOURNAL, _NAME = "journal.log", ".study"
_SEED_STRIDE = 7919  # a trial is seeded by seed * stride + number, so that seeds do not share streams


@dataclass(frozen=True)
class StudyConfig:
    """The settings of a search except for its space: the fields of ``hydra/sweeper=optuna``."""

    n_trials: int = 20
    n_jobs: Optional[int] = None
    sampler: str = "tpe"
    sampler_kwargs: Optional[dict[str, Any]] = None
    pruner: str = "none"
    pruner_kwargs: Optional[dict[str, Any]] = None
    storage: Optional[str] = None
    objectives: list[str] = field(default_factory=list)
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: If one is invalid; names the key, its value and what is allowed.
        """
        for key, valid in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in valid:
                name = str(getattr(self, key))
                raise InputError(f"hydra.sweeper.{key}={name}: there is no such {key}{did_you_mean(name, valid)}")
        for key in ("n_trials", "n_jobs"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"hydra.sweeper.{key}={value}: must be >= 1")
        for name in self.objectives:
            direction(name)
        if self.pruner != "none" and len(self.objectives) > 1:
            raise InputError(f"hydra.sweeper.pruner={self.pruner}: Optuna prunes only with a single objective")

    def check_repetitions(self, count: int) -> None:
        """Check that the pruner suits the number of runs per setting.

        Raises:
            InputError: If it does not; says what would.
        """
        if self.prunes_within_runs(count) and not all(name.startswith("dev/") for name in self.objectives):
            raise InputError(
                f"hydra.sweeper.pruner={self.pruner}: needs an objective evaluated during training, a dev metric"
            )
        if self.pruner == "wilcoxon" and count < 2:
            raise InputError("hydra.sweeper.pruner=wilcoxon: compares runs by seed; give several seeds: seed=1,2,3")

    def prunes_within_runs(self, repetitions: int) -> bool:
        """Whether runs are pruned during training; a setting with several runs is pruned between them instead."""
        return self.pruner != "none" and repetitions < 2

    def sampler_for(self, number: int, dimensions: Sequence[Dimension]) -> BaseSampler:
        """Return a sampler whose draws depend only on the seed, the trial's number and the content of the study.

        So a search that is killed and resumed gives the same trials as one that was not.
        """
        from optuna import samplers

        module: Any
        arguments = dict(self.sampler_kwargs or {})
        if self.sampler == "grid":
            from afqmc.sweeps import grid_sampler

            module, arguments = grid_sampler, {**arguments, "dimensions": dimensions}
        else:
            module, arguments["seed"] = samplers, self.seed * _SEED_STRIDE + number
        sampler: BaseSampler = _instantiate(module, SAMPLERS[self.sampler], arguments, "sampler_kwargs")
        return sampler

    def build_pruner(self) -> BasePruner:
        """Return the configured pruner."""
        from optuna import exceptions, pruners

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            pruner: BasePruner = _instantiate(pruners, PRUNERS[self.pruner], self.pruner_kwargs or {}, "pruner_kwargs")
        return pruner

    def open_storage(self, sweep: Path) -> BaseStorage:
        """Open the journal file in the sweep's directory, or the configured database.

        Raises:
            InputError: If it cannot be opened.
        """
        from optuna.storages import JournalStorage, RDBStorage

        from afqmc.sweeps.journal import Journal

        if self.storage is None:
            path = sweep / _JOURNAL
            with as_input_error(f"{path}: invalid journal of a search"):
                if path.exists():
                    check_regular(path)
                return JournalStorage(Journal(path))
        try:
            return RDBStorage(self.storage)
        except Exception as error:  # from SQLAlchemy or the database driver
            raise InputError(f"hydra.sweeper.storage: cannot be opened: {first_line(error)}") from error


def direction(objective: str) -> Literal["maximize", "minimize"]:
    """Return ``maximize`` or ``minimize`` for a dev metric or a figure of summary.json.

    Raises:
        InputError: If the objective is neither.
    """
    from afqmc.evaluation.metric_names import DECIDED_NAMES, NAMES, higher_is_better

    if objective in _MINIMIZED:
        return "minimize"
    metrics = [f"dev/{name}" for name in (*NAMES, *DECIDED_NAMES) if name != "majority_accuracy"]
    valid = [*metrics, *_MAXIMIZED]
    if objective not in valid:
        raise InputError(f"hydra.sweeper.objectives: {objective}{did_you_mean(objective, [*valid, *_MINIMIZED])}")
    return "maximize" if objective in _MAXIMIZED or higher_is_better(objective) else "minimize"


def open_study(
    settings: StudyConfig, sweep: Path, objectives: Sequence[str], dimensions: Sequence[Dimension] = ()
) -> Study:
    """Load the sweep's study, or create it.

    Raises:
        InputError: If the storage cannot be opened, or its study has other objectives or another space.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    directions = [direction(name) for name in objectives]
    study = optuna.create_study(
        storage=settings.open_storage(sweep),
        study_name=study_name(settings, sweep),
        directions=directions,
        pruner=settings.build_pruner(),
        load_if_exists=True,
    )
    stored = [direction.name.lower() for direction in study.directions]
    if stored != directions:
        raise InputError(
            f"{sweep}: its study has other objectives ({', '.join(stored)}); another sweep.name starts a new search"
        )
    before = {key: distribution for trial in study.trials for key, distribution in trial.distributions.items()}
    for dimension in dimensions:
        key, now = dimension.key, dimension.distribution
        try:
            optuna.distributions.check_distribution_compatibility(before.get(key, now), now)
        except ValueError as error:
            raise InputError(
                f"{sweep}: {key} was searched in {before[key]}; another sweep.name starts a new search"
            ) from error
    return study


def study_name(settings: StudyConfig, sweep: Path) -> str:
    """Return the name of a sweep's study, which is made unique in a database shared with other sweeps.

    In a journal file the name has no random part, as Hyperband's draws depend on it and must be reproducible.
    """
    name, path = f"afqmc/{sweep.absolute().name}", sweep / _NAME
    if settings.storage is None:
        return name
    if not path.exists():
        write_text(path, f"{name}/{secrets.token_hex(4)}\n")
    return read_text(path, SMALL).strip()


def _instantiate(module: Any, name: str, arguments: dict[str, Any], key: str) -> Any:
    try:
        return getattr(module, name)(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"hydra.sweeper.{key}: {name}: {first_line(error)}") from error
