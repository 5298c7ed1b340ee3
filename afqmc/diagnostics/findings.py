"""A finding: one line of the doctor's report, with a verdict, and its numbers for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """What a finding means for the run."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``facts`` are its figures by name."""

    section: str
    verdict: Verdict
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def ok(section: str, text: str, **facts: Any) -> Finding:
    """Nothing to do."""
    return Finding(section, Verdict.ok, text, facts)


def warn(section: str, text: str, **facts: Any) -> Finding:
    """The run goes through; its figures may mean less than they seem to."""
    return Finding(section, Verdict.warn, text, facts)


def fail(section: str, text: str, **facts: Any) -> Finding:
    """The run would stop."""
    return Finding(section, Verdict.fail, text, facts)
