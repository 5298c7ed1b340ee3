"""The study of a search: Optuna's samplers, pruners and storage by their names."""

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
_MINIMIZED = ("seconds", "train_seconds", "peak_memory_gib", "parameters")
_MAXIMIZED = ("train_pairs_per_second",)
_JOURNAL, _NAME = "journal.log", ".study"
_PER_SEED = 7919  # trials of one search draw from streams this far apart from the next seed's


@dataclass(frozen=True)
class StudyConfig:
    """What a search is, besides its space; the fields are those of ``hydra/sweeper=optuna``."""

    n_trials: int = 20
    n_jobs: Optional[int] = None
    sampler: str = "tpe"
    sampler_args: Optional[dict[str, Any]] = None
    pruner: str = "none"
    pruner_args: Optional[dict[str, Any]] = None
    storage: Optional[str] = None
    objectives: list[str] = field(default_factory=list)
    seed: int = 1

    def __post_init__(self) -> None:
        """Hold them to what there is.

        Raises:
            InputError: naming the key, what was found and what is legal.
        """
        for key, legal in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in legal:
                name = str(getattr(self, key))
                raise InputError(f"hydra.sweeper.{key}={name}: there is no such {key}{did_you_mean(name, legal)}")
        for key in ("n_trials", "n_jobs"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"hydra.sweeper.{key}={value}: must be >= 1")
        for name in self.objectives:
            direction(name)
        if self.pruner != "none" and len(self.objectives) > 1:
            raise InputError(f"hydra.sweeper.pruner={self.pruner}: Optuna prunes where there is one objective only")

    def check_repetitions(self, count: int) -> None:
        """Hold the pruner to how many runs a setting has.

        Raises:
            InputError: naming the key, and what would do.
        """
        if self.prunes_within_runs(count) and not all(name.startswith("dev/") for name in self.objectives):
            raise InputError(
                f"hydra.sweeper.pruner={self.pruner}: judges what is evaluated on the way, a metric of dev"
            )
        if self.pruner == "wilcoxon" and count < 2:
            raise InputError("hydra.sweeper.pruner=wilcoxon: compares seed by seed; name several: seed=1,2,3")

    def prunes_within_runs(self, repetitions: int) -> bool:
        """Whether evaluations are judged; a setting with several runs is judged after each of them instead."""
        return self.pruner != "none" and repetitions < 2

    def sampler_for(self, number: int, axes: Sequence[Dimension]) -> BaseSampler:
        """A sampler whose draws depend on the seed, the trial's number and what the study holds, on nothing else.

        So a search that was killed and goes on finds what it would have found.
        """
        from optuna import samplers

        module: Any
        arguments = dict(self.sampler_args or {})
        if self.sampler == "grid":
            from afqmc.sweeps import search_space as grid

            module, arguments = grid, {**arguments, "axes": axes}
        else:
            module, arguments["seed"] = samplers, self.seed * _PER_SEED + number
        found: BaseSampler = _made(module, SAMPLERS[self.sampler], arguments, "sampler_args")
        return found

    def build_pruner(self) -> BasePruner:
        """As configured."""
        from optuna import exceptions, pruners

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            found: BasePruner = _made(pruners, PRUNERS[self.pruner], self.pruner_args or {}, "pruner_args")
        return found

    def open_storage(self, sweep: Path) -> BaseStorage:
        """A journal file in the sweep's directory, or the address of a database.

        Raises:
            InputError: when it cannot be opened.
        """
        from optuna.storages import JournalStorage, RDBStorage

        from afqmc.sweeps.journal import Journal

        if self.storage is None:
            path = sweep / _JOURNAL
            with as_input_error(f"{path}: not the journal of a search"):
                if path.exists():
                    check_regular(path)
                return JournalStorage(Journal(path))
        try:
            return RDBStorage(self.storage)
        except Exception as error:  # SQLAlchemy's, and those of each database's driver
            raise InputError(f"hydra.sweeper.storage: cannot be opened: {first_line(error)}") from error


def direction(objective: str) -> Literal["maximize", "minimize"]:
    """``maximize`` or ``minimize``, for a metric of dev or a figure of summary.json.

    Raises:
        InputError: for anything else.
    """
    from afqmc.evaluation.metric_names import NAMES

    if objective in _MINIMIZED or objective == "dev/loss":
        return "minimize"
    legal = [*(f"dev/{name}" for name in NAMES if name != "majority_accuracy"), *_MAXIMIZED]
    if objective not in legal:
        raise InputError(f"hydra.sweeper.objectives: {objective}{did_you_mean(objective, [*legal, *_MINIMIZED])}")
    return "maximize"


def open_study(settings: StudyConfig, sweep: Path, objectives: Sequence[str], axes: Sequence[Dimension] = ()) -> Study:
    """The sweep's study, made where there is none.

    Raises:
        InputError: when the storage cannot be opened, or holds one of other objectives or of another space.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    wanted = [direction(name) for name in objectives]
    study = optuna.create_study(
        storage=settings.open_storage(sweep),
        study_name=study_name(settings, sweep),
        directions=wanted,
        pruner=settings.build_pruner(),
        load_if_exists=True,
    )
    found = [one.name.lower() for one in study.directions]
    if found != wanted:
        raise InputError(
            f"{sweep}: its study has other objectives ({', '.join(found)}); another sweep.name starts anew"
        )
    before = {key: one for trial in study.trials for key, one in trial.distributions.items()}
    for axis in axes:
        try:
            optuna.distributions.check_distribution_compatibility(
                before.get(axis.key, axis.distribution), axis.distribution
            )
        except ValueError as error:
            raise InputError(
                f"{sweep}: {axis.key} was searched in {before[axis.key]}; another sweep.name starts anew"
            ) from error
    return study


def study_name(settings: StudyConfig, sweep: Path) -> str:
    """Of the study of a sweep; a database may hold those of many sweeps that are called alike.

    Hyperband draws by the name: in a journal of its own a search is the same wherever it is made.
    """
    name, mark = f"afqmc/{sweep.absolute().name}", sweep / _NAME
    if settings.storage is None:
        return name
    if not mark.exists():
        write_text(mark, f"{name}/{secrets.token_hex(4)}\n")
    return read_text(mark, SMALL).strip()


def _made(module: Any, name: str, arguments: dict[str, Any], key: str) -> Any:
    try:
        return getattr(module, name)(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"hydra.sweeper.{key}: {name}: {first_line(error)}") from error
