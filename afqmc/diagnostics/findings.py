"""``Finding``: one line of the doctor's report, with a verdict, and figures for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """The consequence of a finding for the run."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``facts`` are its figures by name."""

    section: str
    verdict: Verdict
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def ok(section: str, text: str, **facts: Any) -> Finding:
    """Return a finding that needs no action."""
    return Finding(section, Verdict.ok, text, facts)


def warn(section: str, text: str, **facts: Any) -> Finding:
    """Return a finding that would not stop the run, but may make its results misleading."""
    return Finding(section, Verdict.warn, text, facts)


def fail(section: str, text: str, **facts: Any) -> Finding:
    """Return a finding that would stop the run."""
    return Finding(section, Verdict.fail, text, facts)
