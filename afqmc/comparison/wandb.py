"""Upload the comparison to W&B, and sync runs that were not sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.wording import display_name
from afqmc.results.runs import Run
from afqmc.results.settings import Setting, format_value
from afqmc.results.wandb_replay import finished_run
from afqmc.run_dir import RunDir, Status
from afqmc.tracking.config import TrackerConfig, WandbMode
from afqmc.tracking.wandb_session import NotSentError, can_send
from afqmc.tracking.wandb_sync import files, mark_sent, replay, sync, unsent
from afqmc.tracking.wandb_upload import Table, Upload, upload
from afqmc.utils.errors import InputError, first_line, printable
from afqmc.utils.redaction import redacted


@dataclass(frozen=True)
class SendResult:
    """A message for the user, and whether the step succeeded."""

    message: str
    succeeded: bool = True


def upload_target(runs: Sequence[Run], requested: str | None) -> TrackerConfig:
    """Return where to upload the comparison: the project of its runs, and their group if they share one.

    Args:
        runs: The runs compared.
        requested: Another project, ``PROJECT`` or ``ENTITY/PROJECT``.

    Raises:
        InputError: if the runs belong to several projects or to none.
    """
    configs = [run.config for run in runs if "tracker.project" in run.config]
    groups = {str(config.get("tracker.group") or "") for config in configs}
    group = groups.pop() if len(groups) == 1 else ""
    projects = {(str(config.get("tracker.entity") or ""), str(config["tracker.project"])) for config in configs}
    if requested is not None:
        entity, _, project = requested.rpartition("/")
        projects = {(entity, project)}
    if len(projects) != 1 or not all(project for _, project in projects):
        names = ", ".join(sorted("/".join(filter(None, parts)) for parts in projects)) or "none that can be read"
        raise InputError(f"--wandb: the runs' W&B projects are {names}: name one with --wandb-project [ENTITY/]PROJECT")
    ((entity, project),) = projects
    name = f"comparison of {group or f'{len(runs)} runs'}"
    return TrackerConfig(
        project=project, entity=entity or None, group=group or None, job_type="comparison", name=redacted(name)
    )


def send(
    runs: Sequence[Run], report: ComparisonReport, target: TrackerConfig | None, texts: Mapping[str, str]
) -> Iterator[SendResult]:
    """Sync the runs, then upload the comparison if there is a target."""
    if runs:
        yield from sync_runs(runs)
    if target is not None:
        yield upload_comparison(report, target, texts)


def sync_runs(runs: Sequence[Run]) -> Iterator[SendResult]:
    """Send the runs that W&B does not have yet, in their order."""
    try:
        is_online = can_send()
    except NotSentError as error:
        yield SendResult(f"W&B: {error}", succeeded=False)
        return
    for run in runs:
        result = _sync_run(run, is_online)
        yield SendResult(printable(f"W&B: {run.name}: {result.message}"), result.succeeded)


def _sync_run(run: Run, is_online: bool) -> SendResult:
    directory = RunDir(run.path)
    if run.status == Status.refused.value:
        return SendResult("nothing to send: it was refused before it began")
    try:
        with directory.locked():
            directory.reject_escaping_links()
            pending = unsent(run.path)
            if pending and is_online:
                return SendResult(_send_files(run, pending))
            if files(run.path):
                return SendResult("already in W&B's offline files" if pending else "sent before")
            finished = finished_run(run, WandbMode.online if is_online else WandbMode.offline)
            replay(run.path, finished)
            how = " and sent" if is_online else ", offline"
            return SendResult(f"rebuilt from its own files{how}{finished.lacking}")
    except Exception as error:  # whatever fails for one run must not stop the others
        return SendResult(f"not sent: {redacted(first_line(error))}", succeeded=False)


def _send_files(run: Run, pending: list[Path]) -> str:
    """Send W&B's offline files. If they are incomplete, as after a kill, rebuild the rest from the run's own files."""
    try:
        sync(pending)
        return "sent"
    except NotSentError as error:
        finished = finished_run(run, WandbMode.online)
        replay(run.path, finished)
        mark_sent(pending)
        return f"sent, the rest rebuilt from its own files ({error}){finished.lacking}"


def upload_comparison(report: ComparisonReport, target: TrackerConfig, texts: Mapping[str, str]) -> SendResult:
    """Upload the settings and the sentences as tables, and the output files as an artifact.

    Args:
        report: The comparison.
        target: From ``upload_target``.
        texts: Contents of the files, by extension (``json``, ``md``, ...).
    """
    runs = [run for setting in report.settings for run in (*setting.runs, *setting.repeats)]
    content = Upload(
        target,
        {"metric": report.metric, "runs": [run.name for run in (*runs, *report.unfinished)]},
        {"settings": _settings_table(report), **_sentences_table(report)},
        _summary(report),
        re.sub(r"[^\w.-]+", "-", f"comparison-{target.group or target.project}", flags=re.ASCII),
        {f"comparison.{extension}": text for extension, text in texts.items()},
    )
    try:
        return SendResult(f"W&B: the comparison: {upload(content)}")
    except NotSentError as error:
        return SendResult(f"W&B: the comparison was not sent: {error}", succeeded=False)


def _settings_table(report: ComparisonReport) -> Table:
    """Return one row per setting, best first; metrics and costs are means over seeds."""
    others = sorted({name for setting in report.settings for run in setting.runs for name in run.figures})
    metrics = [report.metric, *(name for name in others if name != report.metric)]
    facts = ("best_epoch", "total_seconds", "pairs_per_second", "peak_memory_gib")

    def row(rank: int, setting: Setting) -> list[Any]:
        values = [printable(format_value(setting.values[key])) for key in report.keys]
        over_seeds = [len(setting.runs), setting.deviation(report.metric), *map(setting.mean, metrics)]
        return [rank, printable(setting.name), *values, *over_seeds, *map(setting.mean_of, facts)]

    return Table(
        ["rank", "setting", *report.keys, "seeds", f"{report.metric} sd", *metrics, *facts],
        [row(rank, setting) for rank, setting in enumerate(report.settings, 1)],
    )


def _sentences_table(report: ComparisonReport) -> dict[str, Table]:
    sections = {
        "findings": [comparison.sentence for comparison in report.comparisons],
        "not compared": [f"{display_name(setting, report.settings)}: {why}" for setting, why in report.incomparable],
        "without final metrics": [
            f"{run.name}: {', '.join(filter(None, (run.status, run.why)))}" for run in report.unfinished
        ],
        "caveats": report.caveats,
    }
    rows = [[title, printable(line)] for title, lines in sections.items() for line in lines]
    return {"sentences": Table(["kind", "sentence"], rows)} if rows else {}


def _summary(report: ComparisonReport) -> dict[str, Any]:
    runs = sum(len(setting.runs) for setting in report.settings)
    summary: dict[str, Any] = {"settings": len(report.settings), "runs": runs, "unfinished": len(report.unfinished)}
    if report.settings:
        best = report.settings[0]
        summary |= {"best/setting": printable(best.name), f"best/{report.metric}": best.mean(report.metric)}
    return summary
