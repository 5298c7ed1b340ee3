"""Which runs may be put together."""

from __future__ import annotations

from collections.abc import Sequence

from afqmc.comparison.runs import Run
from afqmc.comparison.settings import Setting, differing, fold
from afqmc.errors import InputError


def complete(runs: Sequence[Run], skip_incomplete: bool) -> list[Run]:
    """Those with final figures; two at least.

    Raises:
        InputError: naming those without, unless they may be left out.
    """
    found = [run for run in runs if run.is_complete]
    lacking = [f"{run.name} ({', '.join(filter(None, (run.status, run.why)))})" for run in runs if not run.is_complete]
    if lacking and not skip_incomplete:
        raise InputError(f"without final figures: {'; '.join(lacking)}; --skip-incomplete leaves them out")
    if len(found) < 2:
        raise InputError(f"an ensemble has two complete runs or more; here is {len(found)} of {len(runs)}")
    return found


def one_setting(runs: Sequence[Run]) -> Setting:
    """The setting that all runs have.

    Raises:
        InputError: where they differ in more than seed and fold, or two of them in nothing.
    """
    if keys := differing(runs):
        raise InputError(
            f"the runs differ in {', '.join(keys)}: folds and seeds of one setting are put together; name the "
            "directories of its runs"
        )
    (setting,) = fold(runs)
    if setting.repeats:
        names = ", ".join(run.name for run in setting.repeats)
        raise InputError(f"{names}: the same seed and fold as another run here")
    return setting
