"""``python -m afqmc.doctor [the overrides of a run]``: would it go through, and what do the data hold?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, FAILED, reject_several_processes, run_command
from afqmc.config import compose
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted, redacted_tree

if TYPE_CHECKING:  # it imports torch, which wrong overrides need not wait for
    from afqmc.diagnostics.findings import Finding

_MARKS = {"ok": ("green", "ok  "), "warn": ("yellow", "warn"), "fail": ("red", "FAIL")}


def main() -> int:
    """Print the report; exit code 0 when the run would go through, 1 when not, 2 for overrides that are wrong."""
    reject_several_processes("doctor")
    parser = argparse.ArgumentParser(prog="python -m afqmc.doctor", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as given to afqmc.run")
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help="as given to afqmc.run")
    parser.add_argument("--config-name", "-cn", default="config", metavar="NAME", help="as given to afqmc.run")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_intermixed_args()
    try:
        config = compose(arguments.overrides, arguments.config_dir, arguments.config_name)
    except InputError as error:
        if arguments.json:
            print_json(False, [{"section": "config", "verdict": "fail", "text": str(error)}])
        raise

    from afqmc.diagnostics.checks import Checks
    from afqmc.diagnostics.findings import Verdict

    findings: list[Finding] = []

    def collected() -> Iterable[Finding]:
        for finding in Checks(config).findings():
            findings.append(finding)
            yield finding

    if arguments.json:
        rows = [
            {"section": f.section, "verdict": f.verdict.value, "text": f.text} | ({"facts": f.facts} if f.facts else {})
            for f in collected()
        ]
        passed = all(row["verdict"] != "fail" for row in rows)
        print_json(passed, rows)
        return DONE if passed else FAILED
    show(collected())
    failures = sum(finding.verdict is Verdict.fail for finding in findings)
    warnings = sum(finding.verdict is Verdict.warn for finding in findings)
    verdict = "would stop" if failures else "would go through"
    print(f"\nthis run {verdict}: {failures} failed, {warnings} warnings")
    return FAILED if failures else DONE


def print_json(passed: bool, findings: list[dict[str, Any]]) -> None:
    """The whole report, as one object."""
    print(json.dumps({"passed": passed, "findings": redacted_tree(findings)}, ensure_ascii=False, indent=2))


def show(findings: Iterable[Finding]) -> None:
    """A line a finding, as it is found."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    section = ""
    for finding in findings:
        colour, mark = _MARKS[finding.verdict.value]
        if finding.section != section:
            section = finding.section
            console.print(Text(section, style="bold"))
        console.print(Text.assemble("  ", (mark, colour), "  ", redacted(finding.text)))


if __name__ == "__main__":
    sys.exit(run_command(main))
