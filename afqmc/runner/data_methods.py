"""Apply the data methods of a run: they add pairs to those of the train split, or a teacher's logits to each pair."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from afqmc.data.config import DatasetConfig, Swap
from afqmc.data.loading import Dataset, split_digest
from afqmc.data.pairs import Pairs, PairStream
from afqmc.data.swap import check_symmetric, with_swapped
from afqmc.data.transitive import check_means_same, transitive_pairs
from afqmc.results.runs import Run
from afqmc.runner.teacher import find_teacher, read_unlabelled, with_out_of_fold_logits
from afqmc.utils.errors import InputError


@dataclass(frozen=True)
class TrainingPairs:
    """The pairs to train on.

    Attributes:
        pairs: Those of the train split, and those that the data methods add.
        report: Values that show what each method did, as ``method/value``, for summary.json.
        lines: One sentence per method, for the log.
        teacher: The runs of the teacher.
    """

    pairs: Pairs | PairStream
    report: dict[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    teacher: tuple[Run, ...] = ()

    def digest(self, labels: Sequence[str]) -> str:
        """Return the sha256 of all pairs, labels and logits of the teacher."""
        logits = self.pairs.teacher_logits if isinstance(self.pairs, Pairs) else None
        text = split_digest(self.pairs, labels)
        return text if logits is None else hashlib.sha256(text.encode() + logits.tobytes()).hexdigest()

    @property
    def are_scored(self) -> bool:
        """Whether all pairs have the logits of the teacher, if there is one; unlabelled pairs get them later."""
        logits = self.pairs.teacher_logits if isinstance(self.pairs, Pairs) else None
        return logits is None or not np.isnan(logits).any()


def training_pairs(config: DatasetConfig, data: Dataset) -> TrainingPairs:
    """Apply the data methods that the config names to the train split.

    Raises:
        InputError: naming the key, if a method does not fit the data or has no effect on it.
    """
    check_symmetric(config.swap, data.labels)
    pairs, report, lines = data.train, dict[str, float](), []
    if isinstance(pairs, PairStream):  # the config allows no data method with it
        return TrainingPairs(pairs)
    if config.transitive:
        check_means_same(data.labels)
        new = transitive_pairs(pairs, [split for split in (data.dev, data.test) if split is not None])
        if len(new.pairs) == 0:
            raise InputError(
                "dataset.transitive=true: no pair follows from the labels of train, so it has no effect; leave it out"
            )
        pairs = pairs.followed_by(new.pairs)
        different = len(new.pairs) - new.same
        report |= {"transitive/same": new.same, "transitive/different": different}
        report["transitive/contradictory_clusters"] = new.contradictory
        lines.append(
            f"transitive: {new.same} pairs with the same meaning and {different} others are added to train; "
            f"{new.contradictory} clusters with contradictory labels are left out"
        )
    teacher: list[Run] = []
    if config.teacher is not None:
        teacher = find_teacher(config.teacher)
        pairs = with_out_of_fold_logits(pairs, data.labels, teacher, config.teacher)
        report |= {"teacher/runs": len(teacher), "teacher/labelled": len(pairs)}
        lines.append(f"teacher: {len(teacher)} runs; all {len(pairs)} pairs of train have out-of-fold predictions")
    if config.unlabelled_file is not None:
        unlabelled, left_out = read_unlabelled(config, data)
        pairs, share = pairs.followed_by(unlabelled), len(unlabelled) / (len(unlabelled) + left_out)
        report |= {"teacher/unlabelled": len(unlabelled), "teacher/unlabelled_share": round(share, 6)}
        lines.append(
            f"teacher: {len(unlabelled)} unlabelled pairs are added to train, {share:.1%} of {unlabelled.file}; "
            f"{left_out} are left out, since they are repeated, or in train or dev"
        )
    if config.swap is not Swap.none:
        report["swap/pairs"] = len(pairs)
        lines.append(f"swap: {len(pairs)} pairs are added to train, each with its sentences swapped")
        pairs = with_swapped(pairs)
    return TrainingPairs(pairs, report, tuple(lines), tuple(teacher))
