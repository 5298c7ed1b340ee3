"""Describe the use of a holdout: its number, the earlier uses, and what they mean for intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from afqmc.inference.holdout import HoldoutResult
from afqmc.utils.errors import printable
from afqmc.utils.language import msg


def holdout_lines(result: HoldoutResult, interval: Sequence[float]) -> Iterator[str]:
    """Yield the interval of the accuracy, the number of this use, and the hypotheses of the earlier uses."""
    low, high = interval
    yield msg(
        "accuracy {accuracy:.4f}, {level:.2f}% interval {low:.4f} to {high:.4f}",
        accuracy=result.metrics["accuracy"],
        level=100 * result.level,
        low=low,
        high=high,
    )
    if result.use == 1:
        yield msg("this is use number 1 of the holdout: the interval is valid as it is")
    else:
        yield msg(
            "this is use number {use} of the holdout: the intervals of all {use} uses hold together with 95% if each "
            "has {level:.2f}%, and only if no run was chosen by an earlier result on this file",
            use=result.use,
            level=100 * result.level,
        )
        for use in result.earlier:
            yield msg(
                "  use {use}, {time}, {user}: {hypothesis}",
                use=use["use"],
                time=printable(str(use.get("time"))),
                user=printable(str(use.get("user"))),
                hypothesis=printable(str(use.get("hypothesis"))),
            )
    yield msg("ledger entry: {sha256}", sha256=result.entry["sha256"])
