"""Find run directories and read them: config, status and final figures."""

from __future__ import annotations

import glob
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afqmc.config.renamed_keys import new_value, upgrade_figures
from afqmc.results.untrusted_files import read_config, read_jsonl, read_object
from afqmc.run_dir import Status
from afqmc.utils.errors import InputError
from afqmc.utils.language import join_messages, message_of, msg
from afqmc.utils.redaction import redacted_tree
from afqmc.utils.secret_names import is_secret_value

_MARKS = ("config.yaml", "summary.json", "status.json", ".hydra")  # any of them marks a run directory
_MAX_DEPTH = 4  # levels searched below a given directory; runs/<date>/<time> has two

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: The run directory.
        name: Short name, unique among the runs read together.
        sweep: Short name of its sweep's directory, unique among the runs read together.
        status: As in status.json; ``completed`` if there is a summary, ``unreadable`` if a file is damaged.
        why: Reason in one line, if it is not completed.
        config: All settings by dotted key, secrets as ``***``; empty if unreadable.
        figures: Metrics of the best weights as ``split/name``; None if undefined.
        monitor: The metric by which the best weights were chosen.
        collapsed_label: The label predicted for (nearly) every pair; None for a model that has not collapsed.
        best_step: Step of the best weights.
        best_epoch: Epoch of the best weights.
        total_seconds: Duration of the whole run.
        pairs_per_second: Training throughput.
        peak_memory_gib: Peak memory, if recorded.
    """

    path: Path
    name: str
    status: str
    why: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    monitor: str | None = None
    collapsed_label: str | None = None
    best_step: int | None = None
    best_epoch: float | None = None
    total_seconds: float | None = None
    pairs_per_second: float | None = None
    peak_memory_gib: float | None = None
    sweep: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the run has its final figures."""
        return self.status == Status.completed.value

    @property
    def is_pretraining(self) -> bool:
        """Whether it is a run of ``afqmc.pretrain``."""
        return self.config.get("masking.unit") is not None

    @property
    def seed(self) -> Any:
        """The seed; None if the config is unreadable."""
        return self.config.get("seed")

    @property
    def fold(self) -> Any:
        """The index of the fold used as dev; None without folds."""
        return self.config.get("dataset.fold")

    @property
    def folds(self) -> int | None:
        """The number of folds; None without folds."""
        count = self.config.get("dataset.num_folds")
        return count if type(count) is int and count > 1 else None

    def rows(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl, for learning curves.

        Raises:
            InputError: If it cannot be read.
        """
        return [upgrade_figures(row) for row in read_jsonl(self.path / "metrics.jsonl")]

    def environment(self) -> dict[str, str]:
        """Read commit, precision, device and PyTorch version from environment.json, as far as it has them."""
        try:
            environment = read_object(self.path / "environment.json")
        except InputError:
            return {}
        sections = (environment.get(name) for name in ("git", "hardware", "packages"))
        git, hardware, packages = (section if isinstance(section, dict) else {} for section in sections)
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


def find_runs(names: Iterable[str]) -> list[Run]:
    """Return the runs in the given run directories, directories of runs, or globs; each once, in order.

    Raises:
        InputError: If a path does not exist or contains no run.
    """
    paths: dict[str, Path] = {}
    for name in names:
        matches = [Path(name)] if os.path.lexists(name) else [Path(match) for match in sorted(glob.glob(name))]
        if not matches:
            raise InputError(f"{name}: no such directory")
        for match in matches:
            directories = run_dirs(match)
            if not directories and not _may_lack_runs(match):
                raise InputError(f"{match}: no run in it; a run directory has a config.yaml")
            paths |= {os.path.realpath(path): path for path in directories}
    if not paths:
        raise InputError(f"{', '.join(names)}: no run directory; one has a config.yaml")
    short_names = _short_names(list(paths.values()))
    runs = [read_run(path, name) for path, name in zip(paths.values(), short_names, strict=True)]
    sweeps = [_sweep_dir(path) for path in paths.values()]
    sweep_names = dict(zip(dict.fromkeys(sweeps), _short_names(list(dict.fromkeys(sweeps))), strict=True))
    return [replace(run, sweep=sweep_names[sweep]) for run, sweep in zip(runs, sweeps, strict=True)]


def reject_pretraining(runs: Iterable[Run]) -> None:
    """Check that all runs have predictions of pairs.

    Raises:
        InputError: naming a run of ``afqmc.pretrain``.
    """
    if path := next((run.path for run in runs if run.is_pretraining), None):
        raise InputError(
            f"{path}: is a run of afqmc.pretrain, which predicts no pairs; afqmc.ls shows its dev/loss, and afqmc.run "
            f"model=pretrained model.name_or_path={path} trains a classifier"
        )


def _sweep_dir(run: Path) -> Path:
    """Return the directory of the sweep that the run belongs to, or its parent directory if it is not in a sweep."""
    parents = Path(os.path.abspath(run)).parents
    return next((parent for parent in parents[:_MAX_DEPTH] if (parent / "multirun.yaml").exists()), parents[0])


def read_run(path: Path, name: str) -> Run:
    """Read a run directory; errors become its status."""
    config: dict[str, Any] = {}
    try:
        if not (path / "config.yaml").exists() and not (path / "summary.json").exists():
            return Run(path, name, *_incomplete_status(path, msg("has no config.yaml: invalid, or never started")))
        config = {key: _redact(key, value) for key, value in read_config(path / "config.yaml").items()}
        if not (path / "summary.json").exists():
            return Run(path, name, *_incomplete_status(path, msg("has no summary.json")), config)
        return _completed(path, name, config, read_object(path / "summary.json"))
    except InputError as error:
        return Run(path, name, UNREADABLE, message_of(error), config)
    except OSError as error:
        return Run(path, name, UNREADABLE, msg("cannot be read: {why}", why=error.strerror), config)


def _may_lack_runs(path: Path) -> bool:
    """Whether it is a file or an ensemble, which the shell's expansion of ``sweep/*`` includes."""
    return path.is_file() or any(next(path.glob(name), None) for name in ("ensemble.json", "*/ensemble.json"))


def is_run(directory: Path) -> bool:
    """Whether a directory is a run directory."""
    return any(os.path.lexists(directory / mark) for mark in _MARKS)


def run_dirs(directory: Path) -> list[Path]:
    """Return the directory itself if it is a run directory, else the run directories below it."""
    return list(_iter_run_dirs(directory, _MAX_DEPTH))


def _iter_run_dirs(directory: Path, depth: int) -> Iterator[Path]:
    """Symbolic links are not followed, because they may form cycles."""
    try:
        if is_run(directory):
            yield directory
        elif depth and directory.is_dir():
            for entry in sorted(os.scandir(directory), key=lambda entry: _natural_key(entry.name)):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield from _iter_run_dirs(directory / entry.name, depth - 1)
    except OSError:
        yield directory  # ``read`` reports why it cannot be read


def _natural_key(name: str) -> tuple[int, str]:
    """Sort the jobs of a sweep by number, 2 before 10, then the directories without a number."""
    number = name.partition("-")[0]
    return (int(number), name) if number.isdecimal() and len(number) < 10 else (1 << 40, name)


def _short_names(paths: list[Path]) -> list[str]:
    absolute = [os.path.abspath(path) for path in paths]
    if len(absolute) == 1:
        return [os.path.basename(absolute[0])]
    common = os.path.commonpath(absolute)
    return [os.path.relpath(path, common) for path in absolute]


def _incomplete_status(path: Path, default_reason: str) -> tuple[str, str]:
    """Return status and reason of a run without a summary."""
    if not (path / "status.json").exists():
        return "incomplete", default_reason
    content = read_object(path / "status.json")
    status, step, error = (content.get(key) for key in ("status", "step", "error"))
    if not isinstance(status, str) or status == Status.completed.value:
        return "incomplete", default_reason
    reasons: list[str] = [msg("step {step}", step=step)] if isinstance(step, int) else []
    if status == Status.running.value:
        reasons.append(msg("or killed: last update {when}", when=format_time(last_written(path))))
    if isinstance(error, str) and error.strip():
        reasons.append(error.strip().splitlines()[0])
    return status, join_messages(reasons) if reasons else ""


def last_written(path: Path) -> float:
    """Return when a run directory was last written to, in seconds since the epoch; 0 if that is not known."""
    files = [path / name for name in ("status.json", "metrics.jsonl", "run.log", "config.yaml")]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def format_time(seconds: float) -> str:
    """Return a time since the epoch as local date and minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _completed(path: Path, name: str, config: dict[str, Any], summary: dict[str, Any]) -> Run:
    summary = upgrade_figures(summary)
    best, test = summary.get("best"), summary.get("test", {})
    monitor, collapsed = summary.get("monitor"), summary.get("collapsed_label")
    if not isinstance(best, dict) or not isinstance(test, dict) or not isinstance(monitor, str):
        raise InputError(msg("summary.json: invalid: best, test or monitor is missing or has the wrong type"))
    return Run(
        path=path,
        name=name,
        status=Status.completed.value,
        config=config,
        figures={
            str(key): _number(value) for key, value in upgrade_figures({**best, **test}).items() if "/" in str(key)
        },
        monitor=new_value("trainer.monitor", monitor) or monitor,
        collapsed_label=None if collapsed is None else str(collapsed),
        best_step=best["step"] if isinstance(best.get("step"), int) else None,
        best_epoch=_number(best.get("epoch")),
        total_seconds=_number(summary.get("total_seconds")),
        pairs_per_second=_number(summary.get("train_pairs_per_second")),
        peak_memory_gib=_number(summary.get("peak_memory_gib")),
    )


def _redact(key: str, value: Any) -> Any:
    """Redact secrets, which the saved config contains."""
    is_plain = value is None or isinstance(value, int | float) or (isinstance(value, str) and "://" not in value)
    return value if is_plain and not is_secret_value(key, value) else redacted_tree(value, key)


def _number(value: Any) -> float | None:
    """Return a finite number, else None; the summary stores undefined values as null."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number and math.isfinite(value) else None
    except OverflowError:  # an int may be too large for a float
        return None
