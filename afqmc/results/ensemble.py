"""Ensembles of the folds or seeds of one setting, computed from the predictions that the runs stored."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afqmc.evaluation.predictions import LOG_PROBABILITIES, prediction_rows
from afqmc.results.ensemble_predictions import EnsemblePredictions as EnsemblePredictions
from afqmc.results.ensemble_predictions import ensemble_summary
from afqmc.results.ensemble_predictions import ensemble_test as ensemble_test
from afqmc.results.ensemble_predictions import out_of_fold as out_of_fold
from afqmc.results.ensemble_predictions import require_complete as require_complete
from afqmc.results.ensemble_predictions import require_one_setting as require_one_setting
from afqmc.results.runs import Run, find_runs, is_run, reject_pretraining, run_dirs
from afqmc.results.settings import Setting, group_by_setting, missing_folds
from afqmc.utils.errors import InputError
from afqmc.utils.files import write_json, write_text

SUMMARY = "ensemble.json"  # with the name summary.json the directory would count as a run
_MAX_NAME = 80  # characters of a directory's name
OUT_OF_FOLD, TEST = "out-of-fold", "test"  # files under predictions/


@dataclass(frozen=True)
class Ensemble:
    """The combined predictions of the runs of one setting.

    Attributes:
        setting: The setting, with its member runs.
        left_out: Runs without final figures.
        parts: Combined predictions by file name, ``out-of-fold`` or ``test``.
    """

    setting: Setting
    left_out: list[Run]
    parts: dict[str, EnsemblePredictions]

    @classmethod
    def of(cls, runs: Sequence[Run], skip_incomplete: bool = False) -> Ensemble:
        """Combine the out-of-fold predictions, if the runs are folds, and those on the test split, if there is one.

        Raises:
            InputError: If the runs do not belong together, a fold is missing, or there is nothing to combine.
        """
        reject_pretraining(runs)
        setting = require_one_setting(require_complete(runs, skip_incomplete))
        seeds = [folds for folds in setting.by_seed() if not (skip_incomplete and missing_folds(folds))]
        parts: dict[str, EnsemblePredictions] = {}
        if setting.has_folds and seeds:
            parts[OUT_OF_FOLD] = out_of_fold([run for folds in seeds for run in folds])
        if any((run.path / "predictions/test.jsonl").exists() for run in setting.runs):
            parts[TEST] = ensemble_test(setting.runs)
        if not parts:
            raise InputError("nothing to combine: no seed has all its folds, and no run has a test split")
        return cls(setting, [run for run in runs if not run.is_complete], parts)

    def detail(self, name: str) -> dict[str, Any]:
        """Return the details of a part, with a note on how its weights were chosen; empty for unlabelled pairs."""
        detail = self.parts[name].detail()
        if detail and name == OUT_OF_FOLD and (note := _choice_note(self.setting.runs)) is not None:
            detail["notes"] = [*detail["notes"], note]
        return detail

    def check_directory(self, directory: Path) -> None:
        """Check that the ensemble can be written to the directory.

        Raises:
            InputError: If it is a run directory or a file.
        """
        if is_run(directory):
            raise InputError(f"{directory}: is a run directory; write the ensemble to another one")
        if directory.is_file():
            raise InputError(f"{directory}: is a file; an ensemble is written to a directory")

    def write(self, directory: Path) -> dict[str, Any]:
        """Write predictions/out-of-fold.jsonl, predictions/test.jsonl and ensemble.json, and return the latter.

        Raises:
            InputError: If the directory is a run directory.
        """
        self.check_directory(directory)
        summary_path, *prediction_paths = self.files(directory)
        for path, part in zip(prediction_paths, self.parts.values(), strict=True):
            table = part.rows
            rows = prediction_rows(table.ids, table.logits, table.gold, table.classes, LOG_PROBABILITIES)
            write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        summary = self.summary(directory)
        write_json(summary_path, summary)
        return summary

    def files(self, directory: Path) -> list[Path]:
        """Return the paths that ``write`` writes: ensemble.json, then one prediction file per part."""
        return [directory / SUMMARY, *(directory / "predictions" / f"{name}.jsonl" for name in self.parts)]

    def summary(self, directory: Path) -> dict[str, Any]:
        """Return figures, members and their spread, with the runs' paths relative to the directory."""

        def relative_path(run: Run) -> str:
            return os.path.relpath(run.path, directory)

        runs = self.setting.runs
        return {
            "labels": next(iter(self.parts.values())).rows.classes,
            "folds": runs[0].folds,
            "seeds": [seed_runs[0].seed for seed_runs in self.setting.by_seed()],
            "members": [
                {"path": relative_path(run), "seed": run.seed, "fold": run.fold, **run.figures} for run in runs
            ],
            "left_out": [{"path": relative_path(run), "status": run.status, "why": run.why} for run in self.left_out],
            **{name.replace("-", "_"): self._part_summary(name) for name in self.parts},
        }

    def _part_summary(self, name: str) -> dict[str, Any]:
        part, runs, split = self.parts[name], self.setting.runs, "dev" if name == OUT_OF_FOLD else TEST
        keys = dict.fromkeys(key for run in runs for key in run.figures if key.startswith(f"{split}/"))
        run_figures = {key.partition("/")[2]: ensemble_summary([run.figures.get(key) for run in runs]) for key in keys}
        return {
            "pairs": len(part.rows.ids),
            "figures": part.figures(),
            **self.detail(name),
            "spread": part.spread(),
            **({"of_runs": run_figures} if name == OUT_OF_FOLD else {}),
        }


def _choice_note(runs: Sequence[Run]) -> str | None:
    """Return what it means that each fold chose its weights by the pairs that it predicts; None if it had no choice."""
    counts = [sum(run.monitor in row for row in _evaluations(run)) for run in runs]
    if max(counts) == 1:
        return None
    low, high = min(counts), max(counts)
    number = "several" if not low else f"{high}" if low == high else f"{low} to {high}"
    return (
        f"out-of-fold: each run kept the best of {number} evaluations on the very fold that it predicts here, so these "
        "metrics are on average higher than on new pairs; the intervals do not include that"
    )


def _evaluations(run: Run) -> list[dict[str, Any]]:
    try:
        return run.rows()
    except InputError:
        return []


def build_ensemble(directory: Path, run_dirs: Sequence[Path], skip_incomplete: bool = False) -> dict[str, Any]:
    """Combine runs and write predictions/out-of-fold.jsonl, predictions/test.jsonl and ensemble.json.

    Args:
        directory: Output directory; must not be a run directory.
        run_dirs: Runs of one setting, which differ only in ``dataset.fold`` or ``seed``.
        skip_incomplete: Leave out runs without final figures, and from the out-of-fold part seeds that lack a fold.

    Returns:
        The content of ensemble.json.

    Raises:
        InputError: If the runs do not belong together, a fold is missing, or there is nothing to combine.
    """
    return Ensemble.of(find_runs([str(path) for path in run_dirs]), skip_incomplete).write(directory)


def build_ensembles(directory: Path, run_dirs: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Call ``build_ensemble`` for each setting of a sweep with several complete runs, each in its own subdirectory.

    Yields:
        The subdirectory, and an error message if nothing was written there, else "".
    """
    runs = find_runs(map(str, run_dirs)) if run_dirs else []
    settings = group_by_setting([run for run in runs if run.is_complete and not run.is_pretraining])
    for index, setting in enumerate(settings):
        if len(setting.runs) > 1:
            name = "-".join([str(index), *re.findall(r"[\w.+-]+", setting.name if len(settings) > 1 else "")])
            target = directory / name[:_MAX_NAME]
            try:
                build_ensemble(target, [run.path for run in setting.runs], skip_incomplete=True)
                yield target, ""
            except InputError as error:
                yield target, str(error)


def resolve_members(paths: Sequence[str]) -> list[Run] | None:
    """Return the runs of the ensemble that the paths name, or None if they name a single run directory or no run.

    Raises:
        InputError: If a path does not exist or contains no run.
    """
    if len(paths) == 1 and run_dirs(Path(paths[0])) in ([], [Path(paths[0])]):
        return None
    return find_runs(paths)
