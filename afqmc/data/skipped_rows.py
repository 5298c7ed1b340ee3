"""Count the rows of a file that were left out: dropped by their label, or skipped as invalid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from afqmc.utils.errors import InputError, elide

MAX_SKIPPED, MAX_SKIPPED_SHARE = 10, 0.01  # limits with on_bad_row=skip; the larger one applies, and at most half
_LISTED = 5  # skipped rows that are named


@dataclass
class ReadReport:
    """Counts of one file, filled while its rows are read.

    Attributes:
        file: What messages call it.
        rows: Number of rows read.
        dropped: Dropped rows per label of ``drop_labels``.
        skipped: Number of invalid rows that were skipped.
        reasons: ``file:line: reason`` of the first few skipped rows.
        placeholders: Rows per label that means no label in this file, such as -1.
    """

    file: str = ""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    placeholders: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str) -> None:
        """Count a skipped row."""
        self.skipped += 1
        if len(self.reasons) < _LISTED:
            self.reasons.append(reason)

    def reject_too_many(self) -> None:
        """Check that only a few rows were skipped.

        Raises:
            InputError: with the reasons of the first skipped rows.
        """
        limit = max(MAX_SKIPPED, int(MAX_SKIPPED_SHARE * self.rows))
        if self.skipped > limit or 2 * self.skipped > self.rows:
            raise InputError(
                f"{self.file}: {self.skipped} of {self.rows} rows are invalid; dataset.on_bad_row=skip allows "
                f"{MAX_SKIPPED} or {MAX_SKIPPED_SHARE:.0%} of a file, and never more than half; the first of them:"
                + "".join(f"\n  {reason}" for reason in self.reasons)
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for summary.json; empty if all rows were used."""
        dropped = {label: count for label, count in sorted(self.dropped.items()) if count}
        return ({"dropped": dropped} if dropped else {}) | (
            {"skipped": self.skipped, "first_skipped": self.reasons} if self.skipped else {}
        )

    def skipped_rows(self) -> str:
        """Return the number of skipped rows and the reasons, as text."""
        first = ", the first:" if self.skipped > len(self.reasons) else ", namely:"
        counts = f"{self.skipped} of {self.rows} rows are invalid and skipped (dataset.on_bad_row=skip)"
        return f"{counts}{first}\n  " + "\n  ".join(self.reasons)

    def other_rows(self) -> list[str]:
        """Return a line on dropped rows if there are any, and one if the file counts as unlabelled."""
        lines = []
        if total := self.dropped.total():
            by_label = ", ".join(f"{label!r} {count}" for label, count in sorted(self.dropped.items()) if count)
            lines.append(f"{total} of {self.rows} rows dropped by dataset.drop_labels ({elide(by_label)})")
        if self.placeholders:
            names = " or ".join(sorted(self.placeholders))
            lines.append(f"unlabelled: every label is {names}; the pairs are predicted and not scored")
        return lines

    def notes(self) -> list[str]:
        """Return a line for each kind of row that was left out."""
        return [*self.other_rows(), *([self.skipped_rows()] if self.skipped else [])]
