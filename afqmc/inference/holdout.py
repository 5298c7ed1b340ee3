"""Evaluate on a sealed holdout: a ledger beside the file records each use of its labels before they are read."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.config.safe_yaml import read_literal
from afqmc.data.loading import Pairs
from afqmc.data.pairs import sentences_digest
from afqmc.evaluation.metrics import classification_metrics
from afqmc.inference.ensemble_scores import EnsembleScores, predict_mean
from afqmc.inference.predictor import Predictor
from afqmc.inference.protected_files import named_files
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none, read_json_or_empty
from afqmc.utils.hash_chain import Entry, append_entry, read_chain
from afqmc.utils.redaction import redacted_argument
from afqmc.utils.safe_files import NotRegularError
from afqmc.utils.safe_files import sha256 as file_sha256

_ERROR = 0.05  # of an interval
_OPENED, _RESULT = "opened", "result"


@dataclass(frozen=True)
class HoldoutLedger:
    """The record of all uses of a holdout file, a hash chain in ``FILE.ledger.jsonl``.

    A use has two entries: ``opened`` is written before the labels are read, ``result`` after the evaluation. A use that
    failed in between counts, too.

    Attributes:
        file: The labelled file.
    """

    file: Path

    @property
    def path(self) -> Path:
        """The file of the ledger."""
        return self.file.with_name(f"{self.file.name}.ledger.jsonl")

    def uses(self) -> list[Entry]:
        """Return the entries of all uses so far, after checking the ledger, and the file against it.

        Raises:
            InputError: if the ledger is damaged, or the file has changed or is not a regular file.
        """
        return self._checked(read_chain(self.path))

    def open(self, hypothesis: str, run_dirs: Sequence[Path]) -> Entry:
        """Record a use, and return its entry. Only then may the labels be read.

        Args:
            hypothesis: The question that this use answers.
            run_dirs: The runs that are evaluated.

        Raises:
            InputError: if the ledger or the file is not as before, or the ledger cannot be written.
        """

        def entry(entries: list[Entry]) -> Entry:
            return {
                "event": _OPENED,
                "use": len(self._checked(entries)) + 1,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "user": _user(),
                "hypothesis": hypothesis,
                "command": shlex.join([*map(redacted_argument, sys.argv)]),
                "runs": [_describe_run(run_dir) for run_dir in run_dirs],
                "file_sha256": self._digest(),
            }

        return append_entry(self.path, entry)

    def close(self, use: int, result: Mapping[str, Any]) -> Entry:
        """Record the digest of the result of a use, and return the entry."""
        digest = sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"event": _RESULT, "use": use, "time": time, "result_sha256": digest}
        return append_entry(self.path, lambda _: content | {"file_sha256": self._digest()})

    def _checked(self, entries: list[Entry]) -> list[Entry]:
        if entries and entries[0].get("file_sha256") != self._digest():
            raise InputError(
                f"--holdout {self.file}: has changed since its first use ({entries[0].get('time')}); restore it, "
                "because the ledger is that of the old file"
            )
        return [entry for entry in entries if entry.get("event") == _OPENED]

    def _digest(self) -> str:
        try:
            return file_sha256(self.file)
        except NotRegularError as error:
            raise InputError(f"--holdout {error}") from error
        except OSError as error:
            raise InputError(f"--holdout {self.file}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class HoldoutResult:
    """The evaluation of a holdout.

    Attributes:
        scores: The predictions.
        gold: Class indices, (N,).
        metrics: By name.
        use: The number of this use, counted from 1.
        earlier: The entries of the uses before.
        entry: The last entry of the ledger.
    """

    scores: EnsembleScores
    gold: list[int]
    metrics: dict[str, float]
    use: int
    earlier: list[Entry]
    entry: Entry

    @property
    def level(self) -> float:
        """The confidence at which the intervals of all uses hold together with 95% (Bonferroni): 1 - 0.05 / uses."""
        return 1 - _ERROR / self.use

    def as_dict(self, interval: Sequence[float]) -> dict[str, Any]:
        """Return the number of the use, the earlier ones, and the interval of the accuracy as JSON types."""
        earlier = [{key: use.get(key) for key in ("use", "time", "user", "hypothesis")} for use in self.earlier]
        accuracy = {"level": self.level, "interval": [*interval]}
        return {"use": self.use, "earlier": earlier, "accuracy": accuracy, "entry_sha256": self.entry["sha256"]}


def evaluate_holdout(
    file: Path,
    hypothesis: str,
    run_dirs: Sequence[Path],
    device: str | None = None,
    trust: bool = False,
    reading: Sequence[str] = (),
) -> HoldoutResult:
    """Predict the pairs without their labels, record the use in the ledger, and only then read the labels.

    The arguments after ``run_dirs`` are those of ``Predictor.load``.

    Raises:
        InputError: before the labels are read, if the hypothesis is empty, the ledger is damaged or cannot be written,
            the file has changed, it has the pairs of a data file of the runs, or they cannot be loaded.
    """
    if not hypothesis.strip():
        raise InputError("--hypothesis: must not be empty; name the question that this use of the labels answers")
    _reject_own_data(file, run_dirs)
    ledger, predictors = HoldoutLedger(file), []
    ledger.uses()

    def read(predictor: Predictor) -> Pairs:
        predictors.append(predictor)
        return predictor.read_pairs(file, labelled=False, key="--holdout")

    scores = predict_mean(run_dirs, read, device, trust, reading)
    scores.reject_nan()
    _reject_own_pairs(file, scores.pairs, run_dirs)
    use = ledger.open(hypothesis, run_dirs)
    pairs = predictors[0].read_pairs(file, labelled=True, key="--holdout")
    if (pairs.sentence1, pairs.sentence2) != (scores.pairs.sentence1, scores.pairs.sentence2):
        raise InputError(f"--holdout {file}: has rows that are read only with, or only without their labels")
    assert pairs.labels is not None
    gold = list(pairs.labels)
    metrics = classification_metrics(scores.logits, np.asarray(gold))
    entry = ledger.close(use["use"], {"metrics": nan_to_none(dict(metrics)), "logits": scores.logits.tolist()})
    earlier = [entry for entry in ledger.uses() if entry.get("use", 0) < use["use"]]
    return HoldoutResult(scores, gold, metrics, use["use"], earlier, entry)


def _reject_own_data(file: Path, run_dirs: Sequence[Path]) -> None:
    """Refuse the files that a run has read with their labels; with folds, it does not read the dev file."""
    for run_dir in run_dirs:
        config = read_literal(RunDir(run_dir).config)
        if config.get("dataset.num_folds") is not None:
            config = config | {"dataset.dev_file": None}
        for path in named_files(config):
            if os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file):
                raise InputError(f"--holdout {file}: is a data file of {run_dir}, which has read its labels already")


def _reject_own_pairs(file: Path, pairs: Pairs, run_dirs: Sequence[Path]) -> None:
    """Refuse a file with the pairs that a run has read with their labels, under whatever name and in whatever order.

    A streamed split has no digest of its sentences and is not checked.
    """
    digest = sentences_digest(pairs)
    for run_dir in run_dirs:
        summary = read_json_or_empty(RunDir(run_dir).summary)
        data = summary.get("data")
        splits = (
            [*(data.get(name) for name in ("train", "dev", "test")), summary.get("folds")]
            if isinstance(data, dict)
            else []
        )
        if digest in [split.get("sentences_sha256") for split in splits if isinstance(split, dict)]:
            raise InputError(
                f"--holdout {file}: has the pairs of a data file of {run_dir}, which has read their labels already"
            )


def _describe_run(run_dir: Path) -> dict[str, Any]:
    """Return the path of a run and a digest of its weights."""
    weights = RunDir(run_dir).best / "model.safetensors"
    return {"path": str(run_dir.absolute()), "weights_sha256": file_sha256(weights)}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no name for the user
        return str(os.getuid())
