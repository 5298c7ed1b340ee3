"""Runs, and what was found of them, to W&B: what is said of each, and whether it went well."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from afqmc.comparison.report import Report
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
    """A line for a person, and whether what it tells went well."""

    line: str
    is_well: bool = True


def upload_target(runs: Sequence[Run], asked: Optional[str]) -> TrackerConfig:
    """Where the comparison goes: beside its runs, in their group where they share one.

    Args:
        runs: Those compared.
        asked: What a person says instead, ``PROJECT`` or ``ENTITY/PROJECT``.

    Raises:
        InputError: when the runs lie in several projects, or in none.
    """
    configs = [run.config for run in runs if "tracker.project" in run.config]
    groups = {str(config.get("tracker.group") or "") for config in configs}
    group = groups.pop() if len(groups) == 1 else ""
    places = {(str(config.get("tracker.entity") or ""), str(config["tracker.project"])) for config in configs}
    if asked is not None:
        entity, _, project = asked.rpartition("/")
        places = {(entity, project)}
    if len(places) != 1 or not all(project for _, project in places):
        named = ", ".join(sorted("/".join(filter(None, place)) for place in places)) or "none that can be read"
        raise InputError(f"--wandb: the runs' W&B projects are {named}: name one with --wandb-project [ENTITY/]PROJECT")
    ((entity, project),) = places
    name = f"comparison of {group or f'{len(runs)} runs'}"
    return TrackerConfig(
        project=project, entity=entity or None, group=group or None, job_type="comparison", name=redacted(name)
    )


def send(
    runs: Sequence[Run], report: Report, place: Optional[TrackerConfig], texts: Mapping[str, str]
) -> Iterator[SendResult]:
    """Runs first, then the comparison of them; neither where there is none to send."""
    if runs:
        yield from send_runs(runs)
    if place is not None:
        yield send_comparison(report, place, texts)


def send_runs(runs: Sequence[Run]) -> Iterator[SendResult]:
    """Each run that W&B has not got, one after another, in their order."""
    try:
        is_online = can_send()
    except NotSentError as error:
        yield SendResult(f"W&B: {error}", is_well=False)
        return
    for run in runs:
        told = _send(run, is_online)
        yield SendResult(printable(f"W&B: {run.name}: {told.line}"), told.is_well)


def _send(run: Run, is_online: bool) -> SendResult:
    directory = RunDir(run.path)
    if run.status == Status.refused.value:
        return SendResult("nothing to send, it was refused before it began")
    try:
        with directory.locked():
            directory.reject_escaping_links()
            waiting = unsent(run.path)
            if waiting and is_online:
                return SendResult(_sync(run, waiting))
            if files(run.path):
                return SendResult("kept in W&B's offline files already" if waiting else "sent before")
            past = finished_run(run, WandbMode.online if is_online else WandbMode.offline)
            replay(run.path, past)
            return SendResult("rebuilt from its own files" + (" and sent" if is_online else ", offline") + past.lacking)
    except Exception as error:  # of any kind: one run, or the library, must not keep the others back
        return SendResult(f"not sent: {redacted(first_line(error))}", is_well=False)


def _sync(run: Run, waiting: list[Path]) -> str:
    """From W&B's files; what these lack, as those of a run that was killed do, from its own."""
    try:
        sync(waiting)
        return "sent"
    except NotSentError as error:
        past = finished_run(run, WandbMode.online)
        replay(run.path, past)
        mark_sent(waiting)
        return f"sent, the rest rebuilt from its own files ({error}){past.lacking}"


def send_comparison(report: Report, place: TrackerConfig, texts: Mapping[str, str]) -> SendResult:
    """The settings as a table, the sentences and notes, and the files as an artifact.

    Args:
        report: The comparison.
        place: From ``upload_target``.
        texts: Files by their kind, ``json`` or ``md``.
    """
    runs = [run for setting in report.settings for run in (*setting.runs, *setting.repeats)]
    content = Upload(
        place,
        {"metric": report.metric, "runs": [run.name for run in (*runs, *report.unfinished)]},
        {"settings": _settings(report), **_sentences(report)},
        _summary(report),
        re.sub(r"[^\w.-]+", "-", f"comparison-{place.group or place.project}", flags=re.ASCII),
        {f"comparison.{kind}": text for kind, text in texts.items()},
    )
    try:
        return SendResult(f"W&B: the comparison: {upload(content)}")
    except NotSentError as error:
        return SendResult(f"W&B: the comparison was not sent: {error}", is_well=False)


def _settings(report: Report) -> Table:
    """A row a setting, best first, all figures over its seeds."""
    others = sorted({name for setting in report.settings for run in setting.runs for name in run.figures})
    figures = [report.metric, *(name for name in others if name != report.metric)]
    facts = ("best_epoch", "seconds", "pairs_per_second", "peak_memory_gib")

    def row(rank: int, setting: Setting) -> list[Any]:
        values = [printable(format_value(setting.values[key])) for key in report.keys]
        over_seeds = [len(setting.runs), setting.deviation(report.metric), *map(setting.mean, figures)]
        return [rank, printable(setting.name), *values, *over_seeds, *map(setting.mean_of, facts)]

    return Table(
        ["rank", "setting", *report.keys, "seeds", f"{report.metric} sd", *figures, *facts],
        [row(rank, setting) for rank, setting in enumerate(report.settings, 1)],
    )


def _sentences(report: Report) -> dict[str, Table]:
    refused = [f"{display_name(setting, report.settings)}: {why}" for setting, why in report.refused]
    unfinished = [f"{run.name}: {', '.join(filter(None, (run.status, run.why)))}" for run in report.unfinished]
    lines = {
        "what can be said": [comparison.sentence for comparison in report.comparisons],
        "not compared": refused,
        "without final figures": unfinished,
        "to read this rightly": report.notes,
    }
    rows = [[title, printable(line)] for title, found in lines.items() for line in found]
    return {"sentences": Table(["kind", "sentence"], rows)} if rows else {}


def _summary(report: Report) -> dict[str, Any]:
    runs = sum(len(setting.runs) for setting in report.settings)
    found: dict[str, Any] = {"settings": len(report.settings), "runs": runs, "unfinished": len(report.unfinished)}
    if report.settings:
        best = report.settings[0]
        found |= {"best/setting": printable(best.name), f"best/{report.metric}": best.mean(report.metric)}
    return found
