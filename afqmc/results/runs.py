"""Run directories, found and read: what each was, how it ended, and what it reached."""

from __future__ import annotations

import glob
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afqmc.results.translatable import join_messages, message_of, msg
from afqmc.results.untrusted_files import read_config, read_object, read_rows
from afqmc.run_dir import Status
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted_tree
from afqmc.utils.secret_names import is_secret_value

_MARKS = ("config.yaml", "summary.json", "status.json", ".hydra")  # any of them makes a directory a run's
_DEEP = 4  # levels of directories below what a person names: runs/<date>/<time> has two

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: Where it lies.
        name: Short, unique among those read together.
        sweep: The directory of the sweep it belongs to, as short as unique among those read together.
        status: As in status.json; ``completed`` where there is a summary, ``unreadable`` where something is broken.
        why: In a line, where it is not completed.
        config: Every setting by its dotted key, secrets as ``***``; empty where it cannot be read.
        figures: Metrics of the best weights as ``split/name``; None where one is undefined.
        monitor: The metric that chose the best weights.
        collapsed_onto: The label that (nearly) every pair gets; None for a model that tells pairs apart.
        best_step: Of the best weights.
        best_epoch: Of the best weights.
        seconds: Of the whole run.
        pairs_per_second: In training.
        peak_memory_gib: Where the run wrote it down.
    """

    path: Path
    name: str
    status: str
    why: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    monitor: str | None = None
    collapsed_onto: str | None = None
    best_step: int | None = None
    best_epoch: float | None = None
    seconds: float | None = None
    pairs_per_second: float | None = None
    peak_memory_gib: float | None = None
    sweep: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether it has its final figures."""
        return self.status == Status.completed.value

    @property
    def seed(self) -> Any:
        """None where its config does not say."""
        return self.config.get("seed")

    @property
    def fold(self) -> Any:
        """The fold that was its dev; None for a run without folds."""
        return self.config.get("dataset.fold")

    @property
    def folds(self) -> int | None:
        """Of how many folds it is one; None for a run without."""
        found = self.config.get("dataset.folds")
        return found if type(found) is int and found > 1 else None

    def rows(self) -> list[dict[str, Any]]:
        """metrics.jsonl, for curves; read when asked for.

        Raises:
            InputError: when it cannot be read.
        """
        return read_rows(self.path / "metrics.jsonl")

    def environment(self) -> dict[str, str]:
        """What environment.json says of code, precision, device and PyTorch, as far as it does; read when asked for."""
        try:
            found = read_object(self.path / "environment.json")
        except InputError:
            return {}
        parts = {name: found[name] for name in ("git", "hardware", "packages") if isinstance(found.get(name), dict)}
        git, hardware, packages = (parts.get(name, {}) for name in ("git", "hardware", "packages"))
        code = (
            f"{str(git['commit'])[:10]}{' with changes' if git.get('diff_sha256') else ''}" if "commit" in git else None
        )
        facts = {
            "code": code,
            "precision": hardware.get("mixed_precision"),
            "device": hardware.get("gpu") or hardware.get("cpu"),
            "PyTorch": packages.get("torch"),
        }
        return {name: str(value) for name, value in facts.items() if value}


def find(named: Iterable[str]) -> list[Run]:
    """Every run in what a person named: run directories, directories of such, globs of both; each once, in order.

    Raises:
        InputError: when something does not exist or holds no run.
    """
    paths: dict[str, Path] = {}
    for name in named:
        places = [Path(name)] if os.path.lexists(name) else [Path(found) for found in sorted(glob.glob(name))]
        if not places:
            raise InputError(f"{name}: no such directory")
        for place in places:
            found = run_dirs(place)
            if not found and not _is_beside_runs(place):
                raise InputError(f"{place}: no run in it; a run directory holds a config.yaml")
            paths |= {os.path.realpath(path): path for path in found}
    if not paths:
        raise InputError(f"{', '.join(named)}: no run directory; one holds a config.yaml")
    short = _names(list(paths.values()))
    runs = [read(path, name) for path, name in zip(paths.values(), short, strict=True)]
    sweeps = [_sweep_of(path) for path in paths.values()]
    of = dict(zip(dict.fromkeys(sweeps), _names(list(dict.fromkeys(sweeps))), strict=True))
    return [replace(run, sweep=of[sweep]) for run, sweep in zip(runs, sweeps, strict=True)]


def _sweep_of(run: Path) -> Path:
    """The directory that holds a sweep's jobs; of a run outside of any sweep the directory that it lies in."""
    parents = Path(os.path.abspath(run)).parents
    return next((place for place in parents[:_DEEP] if (place / "multirun.yaml").exists()), parents[0])


def read(path: Path, name: str) -> Run:
    """One run directory; whatever is wrong with it becomes its status."""
    config: dict[str, Any] = {}
    try:
        if not (path / "config.yaml").exists() and not (path / "summary.json").exists():
            return Run(path, name, *_ended(path, msg("has no config.yaml: refused, or never begun")))
        config = {key: _shown(key, value) for key, value in read_config(path / "config.yaml").items()}
        if not (path / "summary.json").exists():
            return Run(path, name, *_ended(path, msg("has no summary.json")), config)
        return _completed(path, name, config, read_object(path / "summary.json"))
    except InputError as error:
        return Run(path, name, UNREADABLE, message_of(error), config)
    except OSError as error:
        return Run(path, name, UNREADABLE, msg("cannot be read: {why}", why=error.strerror), config)


def _is_beside_runs(place: Path) -> bool:
    """A shell's ``sweep/*`` names more than the jobs: multirun.yaml, and the ensembles of them."""
    return place.is_file() or any(next(place.glob(name), None) for name in ("ensemble.json", "*/ensemble.json"))


def is_run(place: Path) -> bool:
    """Whether a directory has what makes it a run's."""
    return any(os.path.lexists(place / mark) for mark in _MARKS)


def run_dirs(place: Path) -> list[Path]:
    """The directory itself where it is a run's, else those of the runs below it."""
    return list(_runs_in(place, _DEEP))


def _runs_in(place: Path, depth: int) -> Iterator[Path]:
    """A run directory itself, or those below it; links below it are not followed, they may lead in circles."""
    try:
        if is_run(place):
            yield place
        elif depth and place.is_dir():
            for entry in sorted(os.scandir(place), key=lambda entry: _natural(entry.name)):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield from _runs_in(place / entry.name, depth - 1)
    except OSError:
        yield place  # its reader says why it cannot be read


def _natural(name: str) -> tuple[int, str]:
    """Jobs of a sweep by number, 2 before 10; then what has none."""
    number = name.partition("-")[0]
    return (int(number), name) if number.isdecimal() and len(number) < 10 else (1 << 40, name)


def _names(paths: list[Path]) -> list[str]:
    whole = [os.path.abspath(path) for path in paths]
    if len(whole) == 1:
        return [os.path.basename(whole[0])]
    common = os.path.commonpath(whole)
    return [os.path.relpath(path, common) for path in whole]


def _ended(path: Path, otherwise: str) -> tuple[str, str]:
    """Status and reason of a run without a summary."""
    if not (path / "status.json").exists():
        return "incomplete", otherwise
    found = read_object(path / "status.json")
    status, step, error = found.get("status"), found.get("step"), found.get("error")
    if not isinstance(status, str) or status == Status.completed.value:
        return "incomplete", otherwise
    parts: list[str] = [msg("step {step}", step=step)] if isinstance(step, int) else []
    if status == Status.running.value:
        parts.append(msg("or killed: last written {when}", when=_last_written(path)))
    if isinstance(error, str) and error.strip():
        parts.append(error.strip().splitlines()[0])
    return status, join_messages(parts) if parts else ""


def _last_written(path: Path) -> str:
    files = [path / name for name in ("status.json", "metrics.jsonl", "run.log")]
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(latest))


def _completed(path: Path, name: str, config: dict[str, Any], summary: dict[str, Any]) -> Run:
    best, test = summary.get("best"), summary.get("test", {})
    monitor, collapsed = summary.get("monitor"), summary.get("collapsed_onto")
    if not isinstance(best, dict) or not isinstance(test, dict) or not isinstance(monitor, str):
        raise InputError(msg("summary.json: not a run's summary: best, test or monitor is missing or not of its kind"))
    return Run(
        path, name, Status.completed.value, "", config,
        {str(key): _number(value) for key, value in {**best, **test}.items() if "/" in str(key)},
        monitor, None if collapsed is None else str(collapsed),
        best["step"] if isinstance(best.get("step"), int) else None, _number(best.get("epoch")),
        _number(summary.get("seconds")), _number(summary.get("train_pairs_per_second")),
        _number(summary.get("peak_memory_gib")),
    )  # fmt: skip


def _shown(key: str, value: Any) -> Any:
    """A config holds the secrets that its run was given; tables do not."""
    is_plain = value is None or isinstance(value, int | float) or (isinstance(value, str) and "://" not in value)
    return value if is_plain and not is_secret_value(key, value) else redacted_tree(value, key)


def _number(value: Any) -> float | None:
    """A finite number, or None: the summary writes None for what is undefined."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number and math.isfinite(value) else None
    except OverflowError:  # an int may be too large for a float
        return None
