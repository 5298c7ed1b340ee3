"""``python -m afqmc.doctor [overrides of a run]``: check data, config, hub and device without training."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, FAILED, reject_several_processes, run_command
from afqmc.config import compose
from afqmc.utils.command_help import CommandParser
from afqmc.utils.errors import InputError
from afqmc.utils.language import translate
from afqmc.utils.redaction import redacted, redacted_tree

if TYPE_CHECKING:  # imports torch, which is slow
    from afqmc.diagnostics.findings import Finding

_MARKS = {"ok": ("green", "ok  "), "warn": ("yellow", "warn"), "fail": ("red", "FAIL")}


def main() -> int:
    """Print the report. The exit code is 0 if the run would start, 1 if not, and 2 for invalid overrides."""
    reject_several_processes("doctor")
    parser = CommandParser("doctor")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for afqmc.run")
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help="as for afqmc.run")
    parser.add_argument("--config-name", "-cn", default="config", metavar="NAME", help="as for afqmc.run")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_intermixed_args()
    try:
        config = compose(arguments.overrides, arguments.config_dir, arguments.config_name)
        if config.masking.unit is not None:
            raise InputError(
                "afqmc.doctor: checks runs of afqmc.run; afqmc.pretrain makes its checks itself, before it trains"
            )
    except InputError as error:
        if arguments.json:
            print_json(False, [{"section": "config", "verdict": "fail", "text": str(error)}])
        raise

    from afqmc.diagnostics.checks import Checks
    from afqmc.diagnostics.findings import Verdict

    findings: list[Finding] = []

    def collect() -> Iterable[Finding]:
        for finding in Checks(config).findings():
            findings.append(finding)
            yield finding

    if arguments.json:
        rows = [
            {"section": f.section, "verdict": f.verdict.value, "text": f.text} | ({"facts": f.facts} if f.facts else {})
            for f in collect()
        ]
        passed = all(row["verdict"] != "fail" for row in rows)
        print_json(passed, rows)
        return DONE if passed else FAILED
    print_findings(collect())
    failures = sum(finding.verdict is Verdict.fail for finding in findings)
    warnings = sum(finding.verdict is Verdict.warn for finding in findings)
    verdict = "would stop" if failures else "would go through"
    print(translate(f"\nthis run {verdict}: {failures} failed, {warnings} warnings"))
    return FAILED if failures else DONE


def print_json(passed: bool, findings: list[dict[str, Any]]) -> None:
    """Print the report as one JSON object."""
    print(json.dumps({"passed": passed, "findings": redacted_tree(findings)}, ensure_ascii=False, indent=2))


def print_findings(findings: Iterable[Finding]) -> None:
    """Print each finding on a line as soon as it is known."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    section = ""
    for finding in findings:
        colour, mark = _MARKS[finding.verdict.value]
        if finding.section != section:
            section = finding.section
            console.print(Text(translate(section), style="bold"))
        console.print(Text.assemble("  ", (translate(mark), colour), "  ", redacted(translate(finding.text))))


if __name__ == "__main__":
    sys.exit(run_command(main))
