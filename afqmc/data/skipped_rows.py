"""What a file's reading left out: rows dropped by their label, and rows skipped because they are invalid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from afqmc.utils.errors import InputError, elide

MAX_SKIPPED, MAX_SKIPPED_SHARE = 10, 0.01  # with on_bad_row=skip; the larger of the two, and always less than half
_LISTED = 5  # skipped rows that are named


@dataclass
class ReadReport:
    """Counts of one file, filled while its rows are read.

    Attributes:
        file: What messages call it.
        rows: Rows of the file that were read.
        dropped: How many have each label of ``drop_labels``.
        skipped: How many are invalid.
        reasons: ``file:line: reason`` of the first few of these.
        placeholders: How many have -1, or another label that stands for no label in this file.
    """

    file: str = ""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    placeholders: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str) -> None:
        """Count an invalid row."""
        self.skipped += 1
        if len(self.reasons) < _LISTED:
            self.reasons.append(reason)

    def refuse_too_many(self) -> None:
        """Check that the file has only a few invalid rows.

        Raises:
            InputError: with the first of them.
        """
        most = max(MAX_SKIPPED, int(MAX_SKIPPED_SHARE * self.rows))
        if self.skipped > most or 2 * self.skipped > self.rows:
            raise InputError(
                f"{self.file}: {self.skipped} of {self.rows} rows are invalid; dataset.on_bad_row=skip allows "
                f"{MAX_SKIPPED} or {MAX_SKIPPED_SHARE:.0%} of a file, and never more than half; the first of them:\n  "
                + "\n  ".join(self.reasons)
            )

    def as_dict(self) -> dict[str, Any]:
        """The counts for summary.json; empty if all rows were used."""
        dropped = {label: count for label, count in sorted(self.dropped.items()) if count}
        return ({"dropped": dropped} if dropped else {}) | (
            {"skipped": self.skipped, "first_skipped": self.reasons} if self.skipped else {}
        )

    def skipped_rows(self) -> str:
        """How many rows were skipped, and why."""
        first = "the first" if self.skipped > len(self.reasons) else "namely"
        counts = f"{self.skipped} of {self.rows} rows are invalid and skipped (dataset.on_bad_row=skip)"
        return f"{counts}, {first}:\n  " + "\n  ".join(self.reasons)

    def other_rows(self) -> list[str]:
        """How many rows were dropped, and whether the file counts as unlabelled."""
        lines = []
        if count := self.dropped.total():
            by_label = ", ".join(f"{label!r} {number}" for label, number in sorted(self.dropped.items()) if number)
            lines.append(f"{count} of {self.rows} rows dropped by dataset.drop_labels ({elide(by_label)})")
        if self.placeholders:
            names = " or ".join(sorted(self.placeholders))
            lines.append(f"unlabelled: every label is {names}; the pairs are predicted and not scored")
        return lines

    def notes(self) -> list[str]:
        """A sentence for each kind of row that was left out."""
        return [*self.other_rows(), *([self.skipped_rows()] if self.skipped else [])]
