"""Folds or seeds of one setting taken together, from what each run wrote: nothing is computed with a model again."""

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
from afqmc.results.ensemble_predictions import ensemble_test as ensemble_test
from afqmc.results.ensemble_predictions import out_of_fold as out_of_fold
from afqmc.results.ensemble_predictions import require_complete as require_complete
from afqmc.results.ensemble_predictions import require_one_setting as require_one_setting
from afqmc.results.ensemble_predictions import summarize
from afqmc.results.runs import Run, find, is_run, run_dirs
from afqmc.results.settings import Setting, group_by_setting, missing_folds
from afqmc.utils.errors import InputError
from afqmc.utils.files import write_json, write_text

SUMMARY = "ensemble.json"  # not summary.json, which would make the directory a run's
_LONGEST = 80  # letters of a directory's name
OUT_OF_FOLD, TEST = "out-of-fold", "test"  # files under predictions/


@dataclass(frozen=True)
class Ensemble:
    """Runs of one setting.

    Attributes:
        setting: Their setting, with the runs that are put together.
        left_out: Runs without final figures.
        parts: What was put together, by the name of its file.
    """

    setting: Setting
    left_out: list[Run]
    parts: dict[str, EnsemblePredictions]

    @classmethod
    def of(cls, runs: Sequence[Run], skip_incomplete: bool = False) -> Ensemble:
        """Out-of-fold predictions where there are folds, the mean on the test split where there is one.

        Raises:
            InputError: where the runs do not fit together, a fold is missing, or there is nothing to put together.
        """
        setting = require_one_setting(require_complete(runs, skip_incomplete))
        seeds = [of for of in setting.by_seed() if not (skip_incomplete and missing_folds(of))]
        parts: dict[str, EnsemblePredictions] = {}
        if setting.has_folds and seeds:
            parts[OUT_OF_FOLD] = out_of_fold([run for of in seeds for run in of])
        if any((run.path / "predictions/test.jsonl").exists() for run in setting.runs):
            parts[TEST] = ensemble_test(setting.runs)
        if not parts:
            raise InputError("there is nothing to put together: no seed has all its folds, and no run has a test split")
        return cls(setting, [run for run in runs if not run.is_complete], parts)

    def check_place(self, directory: Path) -> None:
        """Check where an ensemble is to be written.

        Raises:
            InputError: where the directory is a run's, or a file.
        """
        if is_run(directory):
            raise InputError(f"{directory}: is a run's directory; an ensemble needs another")
        if directory.is_file():
            raise InputError(f"{directory}: is a file; an ensemble is written into a directory")

    def write(self, directory: Path) -> dict[str, Any]:
        """predictions/out-of-fold.jsonl, predictions/test.jsonl, and ensemble.json, which is returned.

        Raises:
            InputError: where the directory is a run's.
        """
        self.check_place(directory)
        summary, *of_parts = self.files(directory)
        for path, part in zip(of_parts, self.parts.values(), strict=True):
            of = part.rows
            rows = prediction_rows(of.ids, of.logits, of.gold, of.classes, LOG_PROBABILITIES)
            write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        told = self.summary(directory)
        write_json(summary, told)
        return told

    def files(self, directory: Path) -> list[Path]:
        """What is written there: ensemble.json, then a file a part."""
        return [directory / SUMMARY, *(directory / "predictions" / f"{name}.jsonl" for name in self.parts)]

    def summary(self, directory: Path) -> dict[str, Any]:
        """Figures, members and the spread between them; the runs' paths as seen from the directory."""

        def seen(run: Run) -> str:
            return os.path.relpath(run.path, directory)

        runs = self.setting.runs
        return {
            "labels": next(iter(self.parts.values())).rows.classes,
            "folds": runs[0].folds,
            "seeds": [of[0].seed for of in self.setting.by_seed()],
            "members": [{"path": seen(run), "seed": run.seed, "fold": run.fold, **run.figures} for run in runs],
            "left_out": [{"path": seen(run), "status": run.status, "why": run.why} for run in self.left_out],
            **{name.replace("-", "_"): self._part(name) for name in self.parts},
        }

    def _part(self, name: str) -> dict[str, Any]:
        part, runs, split = self.parts[name], self.setting.runs, "dev" if name == OUT_OF_FOLD else TEST
        keys = dict.fromkeys(key for run in runs for key in run.figures if key.startswith(f"{split}/"))
        of_runs = {key.partition("/")[2]: summarize([run.figures.get(key) for run in runs]) for key in keys}
        return {
            "pairs": len(part.rows.ids),
            "figures": part.figures(),
            **part.detail(),
            "spread": part.spread(),
            **({"of_runs": of_runs} if name == OUT_OF_FOLD else {}),
        }


def build_ensemble(directory: Path, run_dirs: Sequence[Path], skip_incomplete: bool = False) -> dict[str, Any]:
    """Put runs together and write predictions/out-of-fold.jsonl, predictions/test.jsonl and ensemble.json.

    Args:
        directory: Where to; must not be a run's.
        run_dirs: Runs of one setting, which differ in ``dataset.fold`` or ``seed`` alone.
        skip_incomplete: Leave out runs without final figures, and from the out-of-fold part seeds that lack a fold.

    Returns:
        What ensemble.json holds.

    Raises:
        InputError: where they are no such runs, a fold is missing, or there is nothing to put together.
    """
    return Ensemble.of(find([str(path) for path in run_dirs]), skip_incomplete).write(directory)


def build_ensembles(directory: Path, run_dirs: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """``build_ensemble`` for every setting of a sweep that has several complete runs, each in a directory of its own.

    Yields:
        The directory of each, and why there is nothing in it, if so.
    """
    settings = group_by_setting([run for run in find(map(str, run_dirs)) if run.is_complete]) if run_dirs else []
    for place, setting in enumerate(settings):
        if len(setting.runs) > 1:
            name = "-".join([str(place), *re.findall(r"[\w.+-]+", setting.name if len(settings) > 1 else "")])
            target = directory / name[:_LONGEST]
            try:
                build_ensemble(target, [run.path for run in setting.runs], skip_incomplete=True)
                yield target, ""
            except InputError as error:
                yield target, str(error)


def resolve_members(paths: Sequence[str]) -> list[Run] | None:
    """The runs that a person named to be put together; None where it is one run directory, or none at all.

    Raises:
        InputError: when something does not exist or holds no run.
    """
    if len(paths) == 1 and run_dirs(Path(paths[0])) in ([], [Path(paths[0])]):
        return None
    return find(paths)
