"""Compare a run with its repetition: the same bits, a difference that rounding and seeds explain, or another result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.results.prediction_table import PredictionTable
from afqmc.results.runs import Run, find_runs
from afqmc.results.settings import canonical, group_by_setting
from afqmc.results.untrusted_files import read_jsonl, read_object
from afqmc.utils.errors import InputError
from afqmc.utils.language import message_of, msg

_Row = dict[str, Any]

_TIMES = ("time", "train/pairs_per_second")  # of a row of metrics.jsonl; they differ in every run
_LOSS = "train/loss"
_WEIGHTS = ("model.safetensors", "tied.json")
_FIRST_LOSS = {"no": 2.0**-12, "fp16": 2.0**-10, "bf16": 2.0**-7}  # relative, by precision
_LEVEL = 0.95
_FLIP_LEVEL = 0.99
ASSUMED_DEVIATION = 0.005  # of the accuracy of seeds, if the record has no other seeds


class Outcome(Enum):
    """The result of a comparison."""

    identical = "identical"
    explained = "explained"
    different = "different"


@dataclass(frozen=True)
class FirstDifference:
    """The first value that is not the same bit for bit, in the order in which a run writes its files.

    Attributes:
        file: The file in the run directory.
        step: The optimizer step; that of the best weights for predictions and weights.
        name: The metric, the id of the pair, or the file of weights.
        before: The value in the record; None if it is missing.
        now: The value in the repetition; None if it is missing.
    """

    file: str
    step: int | None
    name: str
    before: Any
    now: Any


@dataclass(frozen=True)
class EndDifference:
    """The difference of the dev predictions.

    Attributes:
        pairs: Dev pairs.
        flipped: Pairs with another prediction.
        accuracy_change: Accuracy of the repetition minus that of the record.
        allowed_change: The largest absolute change that counts as explained.
        seeds: Runs of the setting with different seeds, the record included; 1 if there are no others.
        deviation: Standard deviation of their accuracies, or ``ASSUMED_DEVIATION``.
        allowed_flips: The largest number of flipped pairs that counts as explained; None without other seeds.
    """

    pairs: int
    flipped: int
    accuracy_change: float
    allowed_change: float
    seeds: int
    deviation: float
    allowed_flips: int | None


@dataclass(frozen=True)
class Repetition:
    """The result of comparing a run with its repetition.

    Attributes:
        verdict: ``different`` if there is a reason, else ``explained`` if any bit differs.
        first: The first difference; None for identical runs.
        end: The difference of the dev predictions; None for identical runs and for comparisons of the first steps.
        reasons: Why the difference is not explained.
        compared: Numbers of rows, predictions and files of weights that were compared.
    """

    verdict: Outcome
    first: FirstDifference | None
    end: EndDifference | None
    reasons: list[str]
    compared: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return asdict(self) | {"verdict": self.verdict.value}


def other_seeds(record: Run) -> list[Run]:
    """Return the complete runs of the record's sweep with its setting and fold, one per seed, the record included."""
    path = Path(record.path).absolute()
    if not (path.parent / "multirun.yaml").exists():
        return [record]
    runs = [run for run in find_runs([str(path.parent)]) if run.is_complete]
    for setting in group_by_setting(runs):
        members = [*setting.runs, *setting.repeats]
        if any(run.path.absolute() == path for run in members):
            seeds = {canonical(run.seed): run for run in members if canonical(run.fold) == canonical(record.fold)}
            return list((seeds | {canonical(record.seed): record}).values())
    return [record]


def check_rows(record: Run, steps: int) -> None:
    """Check that the record has metrics of the first ``steps`` steps.

    Raises:
        InputError: naming the first step that it has.
    """
    recorded = [row["step"] for row in record.rows() if isinstance(row.get("step"), int)]
    if not recorded or min(recorded) > steps:
        first = f"the first are those of step {min(recorded)}" if recorded else "it has none"
        raise InputError(f"--steps {steps}: the record has no metrics up to this step; {first}")


def compare_repetition(
    record: Run,
    repeated: Run,
    precision: str,
    causes: Sequence[str],
    seeds: Sequence[Run] = (),
    steps: int | None = None,
) -> Repetition:
    """Compare two run directories of the same config.

    Different bits are explained if all of these hold. Each is described in docs/resuming.md:

    1. Something can change the rounding of sums (``causes``).
    2. The first training losses agree up to rounding, so both runs began with the same weights and pairs.
    3. The dev predictions change no more than between seeds (``end_difference``).

    Args:
        record: The run that was repeated.
        repeated: Its repetition.
        precision: The precision of the repetition: no, bf16 or fp16.
        causes: Everything that may change the rounding of sums.
        seeds: Complete runs of the setting with different seeds, the record included.
        steps: Compare only the metrics of these first steps.

    Raises:
        InputError: if a file of the record cannot be read.
    """
    rows_before, rows_now = _rows(record, steps), _rows(repeated, steps)
    compared = {"rows": len(rows_before)}
    first = _first_row_difference(rows_before, rows_now)
    if steps is None:
        compared |= {"predictions": 0, "weights": 0}
        for split in ("dev", "test"):
            count, difference = _first_prediction_difference(record, repeated, split)
            compared["predictions"] += count
            first = first or difference
        compared["weights"], difference = _first_weight_difference(record, repeated)
        first = first or difference
    if first is None:
        return Repetition(Outcome.identical, None, None, [], compared)
    reasons: list[str] = [] if causes else [msg("nothing that changes the rounding of sums differs from the record")]
    reasons += _start_reasons(rows_before, rows_now, precision)
    end = None
    if steps is None:
        try:
            before, now = PredictionTable.of(record, "dev"), PredictionTable.of(repeated, "dev")
            end = end_difference(before, now, _tables(seeds))
            reasons += _end_reasons(end)
        except InputError as error:
            reasons.append(message_of(error))
    return Repetition(Outcome.different if reasons else Outcome.explained, first, end, reasons, compared)


def end_difference(
    before: PredictionTable, now: PredictionTable, seeds: Sequence[PredictionTable] = ()
) -> EndDifference:
    """Compare dev predictions with the differences between seeds.

    A change of one bit grows during training until the runs differ as much as two seeds do (Summers and Dinneen,
    Nondeterminism and Instability in Neural Network Optimization, ICML 2021), so the differences between seeds are the
    measure. Without other seeds, the standard deviation of their accuracy is assumed to be ``ASSUMED_DEVIATION``.

    Args:
        before: Of the record.
        now: Of the repetition.
        seeds: Of runs that differ only in the seed, the record included.

    Raises:
        InputError: if the tables have other pairs or no labels.
    """
    if difference := before.differs_from(now):
        raise InputError(difference)
    seeds = [table for table in seeds if before.differs_from(table) is None]
    pairs, flipped = len(before.ids), _flips(before, now)
    has_seeds = len(seeds) > 1
    deviation = float(np.std([_accuracy(table) for table in seeds], ddof=1)) if has_seeds else ASSUMED_DEVIATION
    freedom = len(seeds) - 1 if has_seeds else None
    return EndDifference(
        pairs=pairs,
        flipped=flipped,
        accuracy_change=_accuracy(now) - _accuracy(before),
        allowed_change=allowed_change(flipped, pairs, deviation, freedom),
        seeds=max(1, len(seeds)),
        deviation=deviation,
        allowed_flips=_allowed_flips(seeds, pairs) if has_seeds else None,
    )


def allowed_change(flipped: int, pairs: int, deviation: float, freedom: int | None) -> float:
    """Return the half-width of a 95% interval for the difference of accuracy between two runs of a setting.

    Its variance is that between two seeds, ``2 * deviation**2``, plus that of McNemar's test (1947), in which each
    flipped pair is gained or lost with equal probability: ``flipped / pairs**2``. The first contains part of the
    second, so the interval is too wide rather than too narrow.

    Args:
        flipped: Pairs with another prediction.
        pairs: All pairs.
        deviation: Standard deviation of the accuracy of seeds.
        freedom: Degrees of freedom of ``deviation``; None if it is assumed.
    """
    from scipy import stats

    quantile = stats.norm.ppf((1 + _LEVEL) / 2) if freedom is None else stats.t.ppf((1 + _LEVEL) / 2, freedom)
    return float(quantile * math.sqrt(2 * deviation**2 + flipped / pairs**2))


def _allowed_flips(seeds: Sequence[PredictionTable], pairs: int) -> int:
    """Return the 99% quantile of a binomial count at the largest share of flipped pairs between two seeds."""
    from scipy import stats

    share = max(_flips(one, other) for one, other in combinations(seeds, 2)) / pairs
    return int(stats.binom.ppf(_FLIP_LEVEL, pairs, share))


def _tables(runs: Sequence[Run]) -> list[PredictionTable]:
    """Return the dev predictions of the runs that have valid ones."""
    tables = []
    for run in runs:
        try:
            tables.append(PredictionTable.of(run, "dev"))
        except InputError:  # such a run is left out
            continue
    return tables


def _flips(one: PredictionTable, other: PredictionTable) -> int:
    return int((one.predicted != other.predicted).sum())


def _accuracy(table: PredictionTable) -> float:
    return float((table.predicted == table.answers().gold).mean())


def _rows(run: Run, steps: int | None) -> list[_Row]:
    rows = [{key: value for key, value in row.items() if key not in _TIMES} for row in run.rows()]
    return [row for row in rows if steps is None or not isinstance(row.get("step"), int) or row["step"] <= steps]


def _aligned(before: Sequence[_Row], now: Sequence[_Row]) -> Iterator[tuple[_Row, _Row]]:
    """Yield the rows in pairs; missing ones are empty."""
    length = max(len(before), len(now))
    for index in range(length):
        yield before[index] if index < len(before) else {}, now[index] if index < len(now) else {}


def _first_row_difference(before: list[_Row], now: list[_Row]) -> FirstDifference | None:
    for old, new in _aligned(before, now):
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                step = old.get("step", new.get("step"))
                return FirstDifference("metrics.jsonl", step, name, old.get(name), new.get(name))
    return None


def _first_prediction_difference(record: Run, repeated: Run, split: str) -> tuple[int, FirstDifference | None]:
    """Return the number of predictions of a split, and the first that differs; both runs lack the test split or not."""
    file = f"predictions/{split}.jsonl"
    if split == "test" and not (record.path / file).exists() and not (repeated.path / file).exists():
        return 0, None
    before, now = (read_jsonl(run.path / file, file) for run in (record, repeated))
    for old, new in _aligned(before, now):
        if old != new:
            name = str(old.get("id", new.get("id")))
            key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
            return len(before), FirstDifference(file, record.best_step, f"{key} {name}", old.get(key), new.get(key))
    return len(before), None


def _first_weight_difference(record: Run, repeated: Run) -> tuple[int, FirstDifference | None]:
    """Return the number of files of weights that the record has checksums of, and the first that differs."""
    file = "checkpoints/best/checksums.json"
    if not (record.path / file).exists():
        return 0, None  # the weights have been deleted
    before, now = (read_object(run.path / file) for run in (record, repeated))
    names = [name for name in _WEIGHTS if name in before or name in now]
    for name in names:
        if before.get(name) != now.get(name):
            return len(names), FirstDifference(file, record.best_step, name, before.get(name), now.get(name))
    return len(names), None


def _start_reasons(before: list[_Row], now: list[_Row], precision: str) -> list[str]:
    """Return why the beginnings of both runs differ by more than rounding."""
    if [row.get("step") for row in before] != [row.get("step") for row in now]:
        return [msg("the rows of metrics are those of other steps")]
    for old, new in zip(before, now, strict=True):
        loss_before, loss_now = old.get(_LOSS), new.get(_LOSS)
        if isinstance(loss_before, float) and isinstance(loss_now, float):
            change, allowed = relative_change(loss_before, loss_now), _FIRST_LOSS.get(precision, _FIRST_LOSS["no"])
            if change > allowed:
                return [
                    msg(
                        "the training loss of step {step} changes by {change:.1e} of its value, and rounding explains "
                        "{allowed:.1e}, so weights, batches or loss were others from the start",
                        step=old.get("step"),
                        change=change,
                        allowed=allowed,
                    )
                ]
            return []
    return []


def relative_change(before: Any, now: Any) -> float:
    """Return the absolute difference of two numbers, divided by the first."""
    return float(abs(now - before) / max(abs(before), 1e-30))


def _end_reasons(end: EndDifference) -> list[str]:
    reasons: list[str] = []
    if abs(end.accuracy_change) > end.allowed_change:
        change, allowed = 100 * end.accuracy_change, 100 * end.allowed_change
        reasons.append(
            msg(
                "dev/accuracy changes by {change:+.2f} points, and seeds explain {allowed:.2f}",
                change=change,
                allowed=allowed,
            )
        )
    if end.allowed_flips is not None and end.flipped > end.allowed_flips:
        reasons.append(
            msg(
                "{flipped} dev predictions change, and seeds explain {allowed}",
                flipped=end.flipped,
                allowed=end.allowed_flips,
            )
        )
    return reasons
