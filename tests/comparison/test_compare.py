"""Tests of ``python -m afqmc.compare``: output and files for valid, broken and malicious runs."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import rows, summary, train
from rich.cells import cell_len
from simulated import answers_of, config_text, simulate, write_run, write_sweep

from afqmc import compare
from afqmc.cli import run_command
from afqmc.comparison.builder import build
from afqmc.comparison.exports import _escape_markdown as escape_markdown
from afqmc.comparison.exports import as_csv, as_dict
from afqmc.config.safe_yaml import literal_yaml, read_literal
from afqmc.evaluation.decision import Decided
from afqmc.evaluation.metrics import classification_metrics
from afqmc.evaluation.predictions import add_groups
from afqmc.results.resampled_metrics import LabelledPredictions, resampled_metric
from afqmc.results.runs import find_runs
from afqmc.results.settings import group_by_setting
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError

CONFIG = config_text()
ANSWERS = simulate(np.random.default_rng(0), 1, 4, 200)[0]


@pytest.fixture
def run_compare(monkeypatch, capsys):
    """Call the command; return its exit code and its output, with wrapped lines joined."""

    def call(*arguments, columns=200):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["afqmc.compare", *map(str, arguments)])
        code = run_command(compare.main)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.err + re.sub(r" *\n  ", " ", printed.out)

    return call


@pytest.fixture
def sweep(tmp_path):
    """Three learning rates, the second much better, with three seeds each."""
    return write_sweep(tmp_path / "sweep", 3, 3, 300, quality=(0.8, 2.0, 0.9))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two small runs that differ in the seed, and one with an invalid config."""
    directory = tmp_path_factory.mktemp("trained")
    for seed in (1, 2):
        train(
            directory / f"{seed}",
            f"seed={seed}",
            "dataset.test_file=dev.json",
            "trainer.max_steps=4",
            "trainer.eval_steps=2",
        )
    with pytest.raises(InputError):
        train(directory / "3", "dataset.max_length=100000")
    return directory


def line_with(text, part):
    (result,) = (line for line in text.splitlines() if part in line)
    return result


def test_real_runs_are_averaged_over_seeds(trained, run_compare):
    """Runs of one setting are averaged over seeds, and a run with invalid input is listed."""
    code, text = run_compare(trained)
    assert code == 0
    figures = [summary(RunDir(trained / name))["best"]["dev/accuracy"] for name in "12"]
    assert f"{np.mean(figures):.4f} ± {np.std(figures, ddof=1):.4f} (2)" in text
    assert re.search(r"- 3: refused, step 0, dataset.max_length=100000: ", text)
    assert "there is only one setting: nothing to compare it with" in text


def test_metrics_match_summary_and_predictions(trained):
    """The metrics of a real run are those of its summary, and can be computed from its predictions."""
    runs = find_runs([str(trained / "1"), str(trained / "2")])
    for run in runs:
        written = summary(RunDir(run.path))
        assert run.figures == {key: value for key, value in written["best"].items() if "/" in key} | written["test"]
        assert (run.best_step, run.total_seconds) == (written["best"]["step"], written["total_seconds"])
        assert len(rows(RunDir(run.path), run.monitor)) == len([row for row in run.rows() if run.monitor in row])
    for metric in ("dev/roc_auc", "dev/mcc", "dev/loss", "test/f1", "dev/average_precision"):
        report = build(runs, metric, 20)
        assert not report.incomparable
        assert len(report.compared) == 1


def test_metrics_follow_exactly_from_logits(trained):
    """The metrics of a real run are exactly those of the logits in its prediction files."""
    for split, name in (("dev", "best"), ("test", "test")):
        lines = (trained / f"1/predictions/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        written = [json.loads(line) for line in lines]
        more = ["probability_calibrated", "prediction_decided"]
        assert list(written[0]) == ["id", "logits", "probability", "prediction", *more, "label"]
        labels, calibrated = (np.array([float(row[key]) for row in written]) for key in ("label", more[0]))
        labels = labels.astype(int)
        decided = np.array([int(row["prediction_decided"]) for row in written])
        again = classification_metrics(np.array([row["logits"] for row in written]), labels)
        again |= Decided(np.stack([1 - calibrated, calibrated], axis=1), decided).metrics(labels)
        recorded = summary(RunDir(trained / "1"))[name]
        assert {f"{split}/{metric}": value for metric, value in again.items()} == {
            key: value for key, value in recorded.items() if "/" in key and key != "dev/asymmetry"
        }


def test_varying_keys_are_columns(sweep, run_compare):
    """Only varying keys are columns, and the best setting comes first."""
    code, text = run_compare(sweep)
    assert code == 0
    header = line_with(text, "pairs/s").split()
    assert header[:6] == ["#", "lr", "dev/accuracy", "95%", "CI", "epoch"]
    ranked = re.findall(r"^ +(\d) +(\S+) +0\.\d{4} ± 0\.\d{4} \(3\)", text, re.MULTILINE)
    assert ranked[0] == ("1", "2e-05")
    assert {lr for _, lr in ranked} == {"1e-05", "2e-05", "3e-05"}


def test_findings_are_sentences(sweep, run_compare):
    """Differences are printed as sentences with interval, p-value and seeds, and the caveats explain them."""
    _, text = run_compare(sweep)
    result = line_with(text, "lr=2e-05 is better than lr=1e-05 by")
    assert re.search(r"by \d+\.\d points \(95% CI \d+\.\d to \d+\.\d, p (=|<) [\d.]+, 3 seeds\)$", result.strip())
    assert "of the findings hold for all 3 pairs of 3 settings together" in text
    assert re.search(r"a difference of [\d.]+ (to [\d.]+ )?points.* is detected with a power of 80%", text)


def test_selection_bias_is_a_caveat(sweep, run_compare):
    """The caveats mention that weights and settings were selected on dev."""
    _, text = run_compare(sweep)
    assert (
        "each run's weights are the best of 3 evaluations on dev by dev/accuracy, which makes its dev metrics" in text
    )
    assert "row 1 is the best of 3 settings on the same dev pairs, which makes it look better than it is" in text


def test_selection_bias_of_single_runs_has_two_values(tmp_path):
    """Single runs do not show how much seeds vary; each assumption has its own sentence."""
    (text,) = [
        one for one in build(find_runs([str(write_sweep(tmp_path, 3, 1, 300))]), None, 20).caveats if "row 1" in one
    ]
    size = r"it looks better by about (\S+) points: corrected, it is (0\.\d{4})\."
    pattern = (
        rf"\. If seeds vary little, {size} If they vary much, {size} Single runs do not show how much seeds vary\."
    )
    low, corrected, high, other = map(float, re.search(pattern, text).groups())
    assert low < high
    assert corrected > other


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_narrow_terminal_truncates_nothing(columns, sweep, monkeypatch, capsys):
    """No line is longer than the terminal is wide, and no value is cut."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["afqmc.compare", str(sweep)])
    assert run_command(compare.main) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert all(any(f" {lr} " in line and "± 0." in line for line in lines) for lr in ("1e-05", "2e-05", "3e-05"))
    assert "…" not in "".join(lines)


def test_unfinished_runs_are_in_the_sentence(sweep, run_compare):
    """If a seed of a setting failed, its sentence says so, and the failed run is listed with its setting."""
    failed = sorted(sweep.iterdir())[3]
    (failed / "summary.json").unlink()
    (failed / "status.json").write_text(json.dumps({"status": "failed", "step": 7, "error": "diverged"}))
    _, text = run_compare(sweep)
    assert "3-lr-2e-05_seed-1 (lr=2e-05): failed, step 7, diverged" in text
    for other in ("1e-05", "3e-05"):
        sentence = line_with(text, f"lr=2e-05 is better than lr={other} by")
        assert sentence.rstrip().endswith("2 and 3 seeds); 1 more run of lr=2e-05 has no final metrics")


def test_more_evaluations_are_corrected_for(sweep, tmp_path, run_compare):
    """If the runs of a setting kept the best of more evaluations, the advantage is subtracted and named."""
    for directory in sweep.glob("*lr-2e-05*"):
        best = summary(RunDir(directory))["best"]["dev/accuracy"]
        rng = np.random.default_rng(int(directory.name[0]))
        values = [best, *(best - abs(rng.normal(0, 0.01, 29)))]
        lines = [json.dumps({"step": i, "dev/accuracy": value}) for i, value in enumerate(values)]
        (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, text = run_compare(sweep, "--json", tmp_path / "out.json")
    subtracted = r"lr=2e-05 is lowered by [\d.]+ points, because its runs chose among 30 evaluations, those of lr="
    assert len(re.findall(subtracted, text)) == 2
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    means = {setting["name"]: setting["mean"] for setting in document["settings"]}
    for one in document["comparisons"]:
        assert one["correction"] > 0.001
        assert one["value"] == pytest.approx(means[one["first"]] - means[one["second"]] - one["correction"])


def test_pairs_that_share_a_sentence_count_once(tmp_path):
    """Predictions with groups have a larger error than the same predictions without."""
    answers, setting = simulate(np.random.default_rng(3), 2, 1, 200)
    errors = {}
    for name in ("grouped", "alone"):
        for job, (one, index) in enumerate(zip(answers, setting, strict=True)):
            directory = tmp_path / name / f"{job}"
            repeated = answers_of(np.repeat(one.gold, 4), np.repeat(one.logits, 4, axis=0))
            config = CONFIG.replace("lr: 0.0005", f"lr: {index + 1}.0e-5").replace("seed: 42", f"seed: {job}")
            write_run(directory, config, repeated)
            if name == "grouped":
                file = directory / "predictions/dev.jsonl"
                table = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                add_groups(table, np.repeat(np.arange(200), 4))
                file.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
        report = build(find_runs([str(tmp_path / name)]), "dev/accuracy", 20)
        errors[name] = report.tests.difference(0, 1).error
    assert errors["grouped"] > 1.3 * errors["alone"]


def test_long_settings_share_a_column(tmp_path, run_compare):
    """Settings with many varying keys share a column, and sentences call them by their rank."""
    better, worse = simulate(np.random.default_rng(0), 2, 1, 200, quality=(3.0, 0.5))[0]
    write_run(tmp_path / "a", CONFIG, better)
    many = CONFIG
    for old, new in (
        ("lr: 0.0005", "lr: 0.001"),
        ("pooling: mean", "pooling: cls"),
        ("batching: length", "batching: random"),
    ):
        many = many.replace(old, new)
    many = many.replace("weight_decay: 0.01", "weight_decay: 0.5").replace("warmup_steps: 0", "warmup_steps: 100")
    write_run(tmp_path / "b", many, worse)
    _, text = run_compare(tmp_path, columns=80)
    assert re.search(
        r"#1 did better than #2 by .* in these very runs \(.*, one run each\); for other seeds, the 95% CI is "
        r".*; single runs do not show which; McNemar: \d+ pairs correct only with #1",
        text,
    )
    assert "other seeds may reverse them" in text
    assert re.search(r"1 +lr=0\.0005 batching=length pooling=mean +0\.\d{4} \(1\)", text)


def written_otherwise(number):
    """A config that differs in five keys."""
    values = {"lr": f"{1e-5 * (number + 1)!r}", "weight_decay": f"{0.01 * number!r}", "warmup_steps": f"{100 * number}"}
    values |= {"pooling": ("mean", "cls")[number % 2], "batching": ("length", "按长度分批")[number % 2]}
    text = CONFIG
    for key, value in values.items():
        text = re.sub(rf"^( *{key}): .*$", rf"\1: {value}", text, flags=re.MULTILINE)
    return text


@pytest.fixture
def two_sweeps(tmp_path):
    """Two sweeps of three settings each; the second one is better and was scored on fewer pairs."""
    answers = simulate(np.random.default_rng(0), 6, 1, 200, quality=(0.5, 0.6, 0.7, 3.0, 3.1, 3.2))[0]
    for number, one in enumerate(answers):
        sweep, pairs = ("night", 200) if number < 3 else ("夜间", 150)
        part = answers_of(one.gold[:pairs], one.logits[:pairs])
        write_run(tmp_path / sweep / f"{number}-lr", written_otherwise(number), part)
        (tmp_path / sweep / "multirun.yaml").touch()
    return [tmp_path / "night", tmp_path / "夜间"]


@pytest.mark.parametrize("columns", [60, 80, 100, 140, 250])
def test_settings_take_at_most_two_lines(columns, two_sweeps, monkeypatch, capsys):
    """At any width, a setting takes at most two lines and no number is wrapped."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["afqmc.compare", *map(str, two_sweeps)])
    assert run_command(compare.main) == 0
    out = capsys.readouterr().out
    assert max(map(cell_len, out.splitlines())) <= columns
    table = out.partition("Findings")[0].partition("─ \n")[2]
    starts = [number for number, line in enumerate(table.splitlines()) if re.match(r" *[1-6]  ", line)]
    assert len(starts) == 6
    assert max(later - earlier for earlier, later in pairwise(starts)) <= 3  # two lines, and an empty one between data
    assert all(table.count(name) >= 3 for name in ("night", "夜间"))
    if columns >= 80:
        numbers = set(re.findall(r"[\d.]+(?:e-\d+)?", table))
        for number in range(6):
            assert {f"{1e-5 * (number + 1):g}", f"{0.01 * number:g}", f"{100 * number}"} <= numbers
    assert len(re.findall(r"0\.\d{4} \(1\)", table)) == 6


def test_settings_on_other_data_are_ranked_separately(two_sweeps, tmp_path, run_compare):
    """Settings on other dev data are ranked in a separate group, in every output."""
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "md", "html")}
    extra = simulate(np.random.default_rng(0), 1, 1, 200, quality=(0.5,))[0][0]
    write_run(two_sweeps[0] / "9-lr", written_otherwise(9), extra)
    _, text = run_compare(*two_sweeps, *(part for kind, path in files.items() for part in (f"--{kind}", path)))
    ranked = re.findall(r"^ *(\d)  +(\d)  +(night|夜间)  .* (0\.\d{4}) \(1\)", text, re.MULTILINE)
    assert [(data, sweep) for _, data, sweep, _ in ranked] == [("1", "night")] * 4 + [("2", "夜间")] * 3
    for group in ("1", "2"):
        values = [value for _, data, _, value in ranked if data == group]
        assert values == sorted(values, reverse=True)
    assert "ranks are valid within the same data only" in text
    assert "row 1 is the best of 4 settings on the same dev pairs" in text
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    assert [setting["data_group"] for setting in document["settings"]] == [1] * 4 + [2] * 3
    assert {run["sweep"] for setting in document["settings"] for run in setting["runs"]} == {"night", "夜间"}
    assert {row["sweep"] for row in csv.DictReader(files["csv"].read_text("utf-8").splitlines())} == {"night", "夜间"}
    assert "| # | data | sweep |" in files["md"].read_text(encoding="utf-8")
    assert "各设置所用的 dev 数据不同" in files["html"].read_text(encoding="utf-8")


def test_single_sweep_and_dataset_have_no_column(sweep, run_compare):
    """The columns sweep and data are only shown if there are several."""
    _, text = run_compare(sweep, sweep)
    assert line_with(text, "pairs/s").split()[:3] == ["#", "lr", "dev/accuracy"]


def test_data_are_distinguished_by_ids(tmp_path, run_compare):
    """Different dev data with equal configs are distinguished by their ids."""
    for number, one in enumerate(simulate(np.random.default_rng(0), 3, 1, 200, quality=(3.0, 0.5, 0.6))[0]):
        ids = range(1, 201) if number == 0 else None
        write_run(tmp_path / f"{number}", CONFIG.replace("lr: 0.0005", f"lr: 0.{number + 1}"), one, ids=ids)
    assert re.search(r"3 +2 +0\.1 ", run_compare(tmp_path)[1])


def test_many_comparisons_are_a_table(tmp_path, run_compare):
    """More than four comparisons are printed as a table."""
    write_sweep(tmp_path / "sweep", 7, 2, 100, quality=(3.0, 0.5))
    _, text = run_compare(tmp_path / "sweep", "--top", "6")
    assert re.search(r"lr=\S+ is better than \d of 5 others", text)
    assert "1 more ranked lower: --top 7 shows them" in text
    assert "only the best 6 of 7 settings are compared; --top 7 compares all" in text


def test_metric_option_changes_the_ranking(sweep, run_compare):
    """With --metric dev/loss, the smallest loss comes first."""
    _, text = run_compare(sweep, "--metric", "dev/loss")
    assert "best dev/loss first" in text
    losses = [float(result) for result in re.findall(r"(0\.\d{4}) ± 0\.\d{4} \(3\)", text)]
    assert len(losses) == 3
    assert losses == sorted(losses)


def test_unknown_metric_suggests_the_nearest(sweep, run_compare):
    """A metric that no run has is an error, with a suggestion."""
    assert run_compare(sweep, "--metric", "f1") == (2, "--metric f1: no run has it; did you mean 'dev/f1'?\n")


def test_different_monitors_require_a_metric(tmp_path, run_compare):
    """If the runs monitored different metrics, --metric is required."""
    write_run(tmp_path / "a", CONFIG, ANSWERS[0])
    write_run(tmp_path / "b", CONFIG.replace("lr: 0.0005", "lr: 0.1"), ANSWERS[1], monitor="dev/f1")
    code, text = run_compare(tmp_path)
    assert code == 2
    assert text == "the runs monitored different metrics (dev/accuracy, dev/f1): choose one with --metric\n"
    assert run_compare(tmp_path, "--metric", "dev/f1")[0] == 0


def test_each_run_is_read_once(sweep, run_compare):
    """Run directories, sweeps and globs may overlap; each run is read once."""
    jobs = sorted(sweep.iterdir())
    code, text = run_compare(jobs[0], sweep, f"{sweep}/*seed-1", f"{sweep}/../sweep")
    assert code == 0
    assert "9 runs of 3 settings" in text


def test_glob_over_a_sweep_skips_ensembles(sweep, run_compare):
    """A shell's ``sweep/*`` may include ensembles and files, which are skipped."""
    (sweep / "ensembles/0-lr").mkdir(parents=True)
    (sweep / "ensembles/0-lr/ensemble.json").write_text("{}", encoding="utf-8")
    (sweep / "multirun.yaml").write_text("", encoding="utf-8")
    code, text = run_compare(*sorted(sweep.iterdir()))
    assert code == 0
    assert "9 runs of 3 settings" in text
    code, text = run_compare(sweep / "ensembles")
    assert code == 2
    assert "no run directory; one has a config.yaml" in text


def test_dated_directories_are_searched(sweep, tmp_path, run_compare):
    """Runs are found in nested directories."""
    (tmp_path / "runs/2026-01-01").mkdir(parents=True)
    shutil.move(sweep, tmp_path / "runs/2026-01-01/sweep")
    assert "9 runs of 3 settings" in run_compare(tmp_path / "runs")[1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("nowhere", "no such directory"), ("no*", "no such directory"), ("empty", "no run in it"), ("file", "no run")],
)
def test_path_without_runs_is_an_error(path, expected, tmp_path, run_compare):
    """A path that is missing or has no run in it is an error."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, text = run_compare(tmp_path / path)
    assert code == 2
    assert expected in text
    assert path in text


def test_repeated_seed_is_ignored(sweep, run_compare):
    """A second run with the same settings and seed is ignored and mentioned."""
    job = next(sweep.glob("0-*"))
    shutil.copytree(job, sweep / "again")
    _, text = run_compare(sweep)
    assert "9 runs of 3 settings" in text
    assert "ignored, because another run has the same settings, seed and fold: again" in text


def test_missing_keys_get_their_default(tmp_path, run_compare):
    """A key that an older config lacks is assumed to have its default, which is mentioned."""
    old = re.sub(r"  (num_folds|fold|fast_cpu_dropout|batching): .*\n", "", CONFIG)
    assert len(old.splitlines()) == len(CONFIG.splitlines()) - 4
    for number, text in enumerate((old, old.replace("lr: 0.0005", "lr: 0.1"), CONFIG.replace("seed: 42", "seed: 1"))):
        write_run(tmp_path / f"{number}", text, ANSWERS[number])
    code, text = run_compare(tmp_path)
    assert code == 0
    assert "3 runs of 2 settings" in text
    assert line_with(text, "pairs/s").split()[:3] == ["#", "lr", "dev/accuracy"]
    keys = "dataset.num_folds, dataset.fold, dataset.batching, performance.fast_cpu_dropout"
    assert f"their default is assumed: {keys}" in text


def test_nested_keys_are_not_missing(tmp_path):
    """A key with nested keys is not missing."""
    for number, text in enumerate((CONFIG, CONFIG.replace("  columns: null\n", "  columns:\n    sentence1: a\n"))):
        write_run(tmp_path / f"{number}", text, ANSWERS[number])
    report = build(find_runs([str(tmp_path)]), None, 20)
    assert (len(report.settings), report.defaulted_keys) == (2, [])


def test_tracking_keys_do_not_split_settings(tmp_path):
    """Runs that differ only in how they are tracked belong to one setting."""
    for name, text in (
        ("a", CONFIG),
        ("b", CONFIG.replace("project: afqmc", "project: x").replace("seed: 42", "seed: 1")),
    ):
        write_run(tmp_path / name, text, ANSWERS[0])
    (setting,) = group_by_setting(find_runs([str(tmp_path)]))
    assert [run.seed for run in setting.runs] == [1, 42]


def other_ids(answers):
    return {"ids": range(1, 201)}, answers


def other_labels(answers):
    gold = 1 - answers.gold
    return {}, type(answers)(gold, answers.predicted, answers.logits)


def fewer(answers):
    return {}, type(answers)(answers.gold[:150], answers.predicted[:150], answers.logits[:150])


@pytest.mark.parametrize(
    ("change", "expected"),
    [(other_ids, "id 1 against 0 in line 1"), (other_labels, "label "), (fewer, "150 pairs against 200")],
)
def test_other_dev_data_are_not_compared(change, expected, tmp_path, run_compare):
    """A setting with other ids, labels or numbers of pairs is not compared, and the reason is printed."""
    write_run(tmp_path / "a", CONFIG, ANSWERS[0])
    write_run(tmp_path / "b", CONFIG.replace("lr: 0.0005", "lr: 0.001"), ANSWERS[1])
    more, answers = change(ANSWERS[2])
    write_run(tmp_path / "c", CONFIG.replace("lr: 0.0005", "lr: 0.1"), answers, **more)
    code, text = run_compare(tmp_path)
    assert code == 0
    refused = line_with(text, "- lr=0.1: other dev data than lr=0.")
    assert expected in refused
    assert "lr=0.1 " not in line_with(text, "cannot be told apart" if "cannot be" in text else "is better than")


def test_seeds_on_other_data_are_not_compared(tmp_path, run_compare):
    """A setting whose seeds were evaluated on different data is not compared."""
    write_run(tmp_path / "a", CONFIG, ANSWERS[0])
    write_run(tmp_path / "b", CONFIG.replace("seed: 42", "seed: 43"), fewer(ANSWERS[1])[1])
    write_run(tmp_path / "c", CONFIG.replace("lr: 0.0005", "lr: 0.1"), ANSWERS[2])
    assert "- lr=0.0005: b: other dev data than a: 150 pairs against 200" in run_compare(tmp_path)[1]


def test_inconsistent_predictions_are_not_compared(sweep, run_compare):
    """Predictions that do not reproduce the recorded metric are not compared."""
    job = next(sweep.glob("3-*"))
    file = job / "predictions/dev.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[0] = lines[0].replace('"prediction": "0", "label": "0"', '"prediction": "0", "label": "1"')
    file.write_text("\n".join(lines), encoding="utf-8")
    _, text = run_compare(sweep)
    assert re.search(r"- lr=2e-05: \S+: predictions/dev.jsonl gives dev/accuracy 0\.\d+, summary.json says 0\.", text)


def test_environment_differences_are_a_caveat(sweep, run_compare):
    """Different code versions are mentioned; equal ones are not."""
    for number, job in enumerate(sorted(sweep.iterdir())):
        made = {"git": {"commit": f"{number % 2}" * 40, "diff_sha256": ""}, "hardware": {"mixed_precision": "no"}}
        (job / "environment.json").write_text(json.dumps(made), encoding="utf-8")
    _, text = run_compare(sweep)
    assert "the compared runs differ in code: 0000000000, 1111111111" in text
    assert "precision" not in text


def broken(kind, directory):
    """Write a run directory with one fault."""
    write_run(directory, CONFIG, ANSWERS[0])
    config, end = directory / "config.yaml", directory / "summary.json"
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    texts = {
        "tag": (config, "lr: !!python/object/apply:os.system ['touch owned']"),
        "interpolation": (config, "lr: ${oc.env:HOME}"),
        "aliases": (config, bomb),
        "deep config": (config, "a: " + "[" * 100_000),
        "not a mapping": (config, "- 1"),
        "no yaml": (config, "a: b: c"),
        "binary": (config, b"\xff\xfe\x00"),
        "control": (config, "lr: \x1b[31m"),
        "huge": (config, "#" * ((1 << 20) + 1)),
        "deep summary": (end, "[" * 100_000),
        "cut summary": (end, end.read_text(encoding="utf-8")[:40]),
        "list": (end, "[]"),
        "no best": (end, '{"monitor": "dev/accuracy", "best": null}'),
        "number": (end, '{"monitor": "dev/accuracy", "best": {"dev/accuracy": ' + "9" * 5000 + "}}"),
    }
    if kind in texts:
        file, content = texts[kind]
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    elif kind == "pipe":
        config.unlink()
        os.mkfifo(config)
    elif kind == "circle":
        end.unlink()
        end.symlink_to(end)
    elif kind == "directory":
        end.unlink()
        end.mkdir()
    elif kind == "device":
        config.unlink()
        config.symlink_to("/dev/zero")


KINDS = {
    "tag": "config.yaml: not readable YAML: could not determine a constructor for the tag",
    "interpolation": "config.yaml: lr=${oc.env:HOME}: a saved config is literal",
    "aliases": "config.yaml:2: *a: a saved config is literal",
    "deep config": "config.yaml:1: nested deeper than 20 levels",
    "not a mapping": "config.yaml: not a run's config",
    "no yaml": "config.yaml: not readable YAML: mapping values are not allowed",
    "binary": "config.yaml: not readable YAML: ",
    "control": "config.yaml: not readable YAML: ",
    "huge": "config.yaml: too large; a run's config has at most 1048576 bytes",
    "deep summary": "summary.json: not readable JSON",
    "cut summary": "summary.json: not readable JSON",
    "list": "summary.json: not a JSON object",
    "no best": "summary.json: invalid: best",
    "number": "summary.json: not readable JSON",
    "pipe": "config.yaml: not a plain file",
    "circle": "has no summary.json",
    "directory": "summary.json: not a plain file",
    "device": "config.yaml: not a plain file",
}


def test_broken_directories_are_listed(tmp_path, run_compare):
    """Each broken or malicious directory is listed with its problem, and the others are compared."""
    for kind in KINDS:
        broken(kind, tmp_path / kind.replace(" ", "-"))
    write_run(tmp_path / "intact", CONFIG, ANSWERS[0])
    code, text = run_compare(tmp_path, columns=400)
    assert code == 0
    assert "1 run of 1 setting, best" in text
    for kind, expected in KINDS.items():
        assert expected in line_with(text, f"- {kind.replace(' ', '-')}: ")
    assert not (tmp_path / "owned").exists()
    assert "/root" not in text.replace(str(tmp_path), "")


ROWS = {
    "no probability": ('{"id": 0}', "rows need id, probability, prediction and label"),
    "no object": ("3", "dev.jsonl, line 1: not a JSON object"),
    "no json": ("{", "dev.jsonl, line 1: not readable JSON"),
    "no class": ('{"id": 0, "probability": 0.5, "prediction": "7", "label": "1"}', "rows need id"),
    "no number": ('{"id": 0, "probability": "x", "prediction": "0", "label": "1"}', "could not convert"),
    "no share": (
        '{"id": 0, "probability": NaN, "prediction": "0", "label": "1"}',
        "contains probabilities outside [0, 1]",
    ),
    "unlikely": ('{"id": 0, "probability": 0.9, "prediction": "0", "label": "1"}', "not the most probable of 0, 1"),
    "a list": ('{"id": 0, "probability": [0.9], "prediction": "0", "label": "1"}', "values of 2 classes"),
    "no logits": ('{"id": 0, "logits": [0, "x"], "prediction": "0", "label": "1"}', "could not convert"),
    "too many logits": ('{"id": 0, "logits": [0, 1, 2], "prediction": "0", "label": "1"}', "values of 2 classes"),
    "one logit": ('{"id": 0, "logits": 3, "prediction": "0", "label": "1"}', "values of 2 classes"),
    "endless": ('{"id": 0, "logits": [0, Infinity], "prediction": "1", "label": "1"}', "logits that are not finite"),
    "huge": ('{"id": 0, "logits": [0, 1e300], "prediction": "1", "label": "1"}', "logits that are not finite"),
    "unlikely by logits": (
        '{"id": 0, "logits": [0, 1], "prediction": "0", "label": "1"}',
        "not the most probable of 0, 1",
    ),
    "nothing": ("", "contains fewer than 2 rows"),
    "deep": ("[" * 100_000, "dev.jsonl, line 1: not readable JSON"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_broken_predictions_are_listed(kind, tmp_path, run_compare):
    """A setting with invalid predictions is listed with the problem."""
    write_run(tmp_path / "a", CONFIG, ANSWERS[0])
    write_run(tmp_path / "b", CONFIG.replace("lr: 0.0005", "lr: 0.1"), ANSWERS[1])
    row, expected = ROWS[kind]
    (tmp_path / "b/predictions/dev.jsonl").write_text(f"{row}\n{row}", encoding="utf-8")
    code, text = run_compare(tmp_path, columns=400)
    assert code == 0
    assert expected in line_with(text, "- lr=0.1: b: predictions/dev.jsonl")


def certain(wrong):
    """Answers with margins of 20 to 200, some of them wrong."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200)
    margin = (2 * gold - 1) * rng.uniform(20, 200, 200)
    margin[:wrong] *= -1
    return answers_of(gold, np.stack([-margin, margin], axis=1) / 2)


def forget_logits(directory):
    """Remove the logits, which earlier versions did not write."""
    file = directory / "predictions/dev.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps(line | {"logits": 0}) + "\n" for line in lines).replace('"logits": 0, ', ""))


@pytest.mark.parametrize("is_old", [False, True])
def test_saturated_probabilities_are_compared(is_old, tmp_path, run_compare):
    """Runs whose probabilities round to 1 are compared by every metric, with and without logits."""
    for number, wrong in enumerate((10, 60)):
        write_run(tmp_path / f"{number}", CONFIG.replace("lr: 0.0005", f"lr: 0.{number + 1}"), certain(wrong))
        if is_old:
            forget_logits(tmp_path / f"{number}")
    for metric in ("dev/loss", "dev/accuracy", "dev/f1"):
        _, text = run_compare(tmp_path, "--metric", metric)
        assert "Not compared" not in text
        assert "lr=0.1 did better than lr=0.2" in text


@pytest.mark.parametrize(("is_old", "factor"), [(False, 1.01), (True, 0.1), (True, 3)])
def test_impossible_loss_is_not_compared(is_old, factor, tmp_path, run_compare):
    """A recorded loss that the predictions cannot have is not compared."""
    for number in range(2):
        write_run(tmp_path / f"{number}", CONFIG.replace("lr: 0.0005", f"lr: 0.{number + 1}"), certain(1))
        if is_old:
            forget_logits(tmp_path / f"{number}")
    if factor == 3:  # no pair is predicted with certainty and wrongly: nothing is unknown
        file = tmp_path / "1/predictions/dev.jsonl"
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text("".join(json.dumps(line | {"label": line["prediction"]}) + "\n" for line in lines))
    end = json.loads((tmp_path / "1/summary.json").read_text(encoding="utf-8"))
    end["best"]["dev/loss"] *= factor
    (tmp_path / "1/summary.json").write_text(json.dumps(end), encoding="utf-8")
    assert re.search(
        r"- lr=0.2: 1: predictions/dev.jsonl gives dev/loss .* summary.json says",
        run_compare(tmp_path, "--metric", "dev/loss")[1],
    )


def test_nonfinite_predictions_are_undefined(tmp_path, run_compare):
    """A run with non-finite logits has no metric, and the reason is printed."""
    for number, answers in enumerate(ANSWERS[:2]):
        write_run(tmp_path / f"{number}", CONFIG.replace("lr: 0.0005", f"lr: 0.{number + 1}"), answers)
    file, end = tmp_path / "1/predictions/dev.jsonl", tmp_path / "1/summary.json"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines[3] |= {"logits": [None, 1.0], "probability": None, "prediction": None}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    document = json.loads(end.read_text(encoding="utf-8"))
    document["best"] = {key: None if "/" in key else value for key, value in document["best"].items()}
    end.write_text(json.dumps(document), encoding="utf-8")
    code, text = run_compare(tmp_path)
    assert code == 0
    assert re.search(r"2 +0\.2 +undefined", text)
    assert "- lr=0.2: 1: predictions/dev.jsonl: 1 pairs have no prediction: their logits are not finite" in text


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"status": "interrupted", "step": 7}, "interrupted, step 7"),
        ({"status": "refused", "step": 0, "error": "lr=-1: must be > 0\nmore"}, "refused, step 0, lr=-1: must be > 0"),
        ({"status": "running"}, "running, or killed: last update 20"),
        ({"status": "completed"}, "incomplete, has no summary.json"),
        ({}, "incomplete, has no summary.json"),
        (None, "incomplete, has no summary.json"),
    ],
)
def test_unfinished_run_shows_its_status(status, expected, tmp_path, run_compare):
    """A run without final metrics is listed with its status."""
    write_run(tmp_path / "run", CONFIG, ANSWERS[0])
    (tmp_path / "run/summary.json").unlink()
    (tmp_path / "run/status.json").unlink()
    if status is not None:
        (tmp_path / "run/status.json").write_text(json.dumps(status), encoding="utf-8")
    code, text = run_compare(tmp_path / "run")
    assert code == 0
    assert f"- run: {expected}" in text


def test_job_that_never_started_is_listed(tmp_path, run_compare):
    """A job directory without a config is listed."""
    (tmp_path / "0-lr/.hydra").mkdir(parents=True)
    assert "- 0-lr: incomplete, has no config.yaml: invalid, or never started" in run_compare(tmp_path)[1]


def test_untrusted_texts_are_escaped(tmp_path, run_compare):
    """Untrusted texts cannot control the terminal, Markdown or a spreadsheet."""
    name = "\x1b[2J\u202e[red]x"
    hostile = CONFIG.replace("batching: length", 'batching: "=HYPERLINK(1)\\e[31m[bold]|x"')
    write_run(tmp_path / "sweep" / name, hostile, ANSWERS[0])
    write_run(tmp_path / "sweep/b", CONFIG, ANSWERS[1])
    (tmp_path / "sweep/c\x07/.hydra").mkdir(parents=True)
    written = {flag: tmp_path / f"out.{flag}" for flag in ("csv", "md", "json")}
    code, text = run_compare(
        tmp_path / "sweep", *(part for flag, path in written.items() for part in (f"--{flag}", path))
    )
    assert code == 0
    texts = [text, *(written[flag].read_text(encoding="utf-8") for flag in ("csv", "md"))]
    assert not any(sign in one for one in texts for sign in ("\x1b", "\u202e", "\x07"))
    assert "[bold]" in text
    cells = [cell for row in csv.reader(written["csv"].read_text(encoding="utf-8").splitlines()) for cell in row]
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
    assert r"\[bold\]\|x" in written["md"].read_text(encoding="utf-8")


def test_csv_has_no_formulas(tmp_path):
    """No cell of the CSV is a formula, and numbers stay numbers."""
    signs = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", "=1", "-")
    keys = "".join(f"    {json.dumps(sign + 'key')}: 1\n" for sign in signs)
    for number, value in enumerate((*signs, -1.5, "-2", "-1e-05")):
        text = CONFIG.replace("batching: length", f"batching: {json.dumps(value)}")
        write_run(
            tmp_path / f"=run{number}",
            text.replace("kwargs: {}", "kwargs:\n" + keys.replace(": 1", f": {number}")),
            ANSWERS[0],
        )
    (tmp_path / "@never/.hydra").mkdir(parents=True)
    header, *lines = csv.reader(as_csv(build(find_runs([str(tmp_path)]), None, 20)).splitlines())
    starts = [unicodedata.normalize("NFKC", cell.lstrip()[:1]) for line in (header, *lines) for cell in line]
    cells = [cell for line in (header, *lines) for cell in line]
    formulas = [cell for cell, start in zip(cells, starts, strict=True) if start in ("=", "+", "-", "@")]
    assert sorted(formulas) == ["-1.5", "-1e-05", "-2"]
    assert not any(cell.startswith(("\t", "\r")) for cell in cells)
    assert len(header) == len(set(header))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b`c`<i>[x](y)", r"a\|b\`c\`\<i\>\[x\](y)"),
        ("https://a.b www.c.d", r"https\://a.b www\.c.d"),
        ("weight_decay=-0.1 _so_ *so* $x$ ~~y~~", r"weight_decay=-0.1 \_so\_ \*so\* \$x\$ \~\~y\~\~"),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_markdown_is_escaped(text, expected):
    """Names have no effect as Markdown."""
    assert escape_markdown(text) == expected


def test_files_contain_every_run(sweep, tmp_path, run_compare):
    """The files contain all runs and settings, whatever --top is."""
    (next(sweep.glob("8-*")) / "summary.json").unlink()
    files = {flag: tmp_path / f"out.{flag}" for flag in ("csv", "json", "md")}
    code, text = run_compare(
        sweep, "--top", "2", *(part for flag, path in files.items() for part in (f"--{flag}", path))
    )
    assert code == 0
    table = list(csv.DictReader(files["csv"].read_text(encoding="utf-8").splitlines()))
    assert [row["status"] for row in table].count("completed") == 8
    assert len(table) == 9
    assert {row["lr"] for row in table} == {"1e-05", "2e-05", "3e-05"}
    assert float(table[0]["dev/accuracy"]) > 0.5
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    assert len(document["settings"]) == 3
    assert sum(len(setting["runs"]) for setting in document["settings"]) + len(document["unfinished"]) == 9
    (comparison,) = document["comparisons"]
    assert comparison["sentence"] in text
    assert comparison["low"] < comparison["value"] < comparison["high"]
    markdown = files["md"].read_text(encoding="utf-8")
    assert markdown.count("± 0.") == 3
    assert "has no summary.json" in markdown


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("nowhere/x.csv", "there is no directory"),
        ("sweep", "is a directory; a file to write is needed"),
        ("sweep/out/x.csv", "a link leads out of"),
    ],
)
def test_invalid_output_fails_early(file, expected, sweep, tmp_path, run_compare):
    """An output that cannot be written is an error before the comparison."""
    (tmp_path / "elsewhere").mkdir()
    (sweep / "out").symlink_to(tmp_path / "elsewhere")
    code, text = run_compare(sweep, "--csv", tmp_path / file)
    assert code == 2
    assert text.startswith(f"--csv {tmp_path / file}: {expected}")


def test_outputs_do_not_replace_inputs(sweep, tmp_path, run_compare):
    """An output must not replace another output or a file of a run."""
    job = next(sweep.iterdir())
    (tmp_path / "link").symlink_to(job / "summary.json")
    before = (job / "summary.json").read_bytes()
    for path in (job / "summary.json", tmp_path / "link"):
        code, text = run_compare(sweep, "--json", path)
        assert code == 2
        assert text.startswith(f"--json {path}: is the same file as the input {job / 'summary.json'}")
    assert (job / "summary.json").read_bytes() == before
    code, text = run_compare(sweep, "--csv", tmp_path / "out", "--json", tmp_path / "x/../out")
    assert code == 2
    (tmp_path / "x").mkdir()
    code, text = run_compare(sweep, "--csv", tmp_path / "out", "--json", tmp_path / "x/../out")
    assert (code, "the same file as --csv" in text) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--csv", "--json", "--md", "--html"])
def test_invalid_file_name_is_an_error(flag, sweep, tmp_path, run_compare):
    """The message for an invalid file name contains the name."""
    code, text = run_compare(sweep, flag, tmp_path / ("a" * 300))
    assert code == 2
    assert text.startswith(f"{flag} {tmp_path / ('a' * 300)}: cannot be written: File name too long")


@pytest.fixture
def folded(tmp_path):
    """Two learning rates, the second better, each with 3 folds of the same 300 pairs and two seeds."""
    answers, number = simulate(np.random.default_rng(0), 2, 2, 300, quality=(0.8, 2.0))
    of = np.random.default_rng(1).integers(0, 3, 300)
    for job, (one, setting) in enumerate(zip(answers, number, strict=True)):
        for fold_number in range(3):
            part = np.flatnonzero(of == fold_number)
            text = CONFIG.replace("lr: 0.0005", f"lr: 0.{setting + 1}").replace("seed: 42", f"seed: {job % 2}")
            text = text.replace("num_folds: null", "num_folds: 3").replace("fold: null", f"fold: {fold_number}")
            run = tmp_path / f"sweep/lr-{setting + 1}_seed-{job % 2}_fold-{fold_number}"
            cut = LabelledPredictions(one.gold[part], one.predicted[part], one.logits[part])
            write_run(run, text, cut, ids=part.tolist())
    return tmp_path / "sweep", answers


def test_folds_are_compared_out_of_fold(folded, run_compare, tmp_path):
    """Folds are repetitions of a setting, and are compared by the combined out-of-fold predictions."""
    sweep, answers = folded
    for metric in ("dev/accuracy", "dev/f1"):
        report = build(find_runs([str(sweep)]), metric, 20)
        assert [len(setting.runs) for setting in report.settings] == [6, 6]
        assert report.keys == ["lr"]
        assert report.tests.examples == 300
        weights = np.ones((300, 1), dtype=np.float32)
        means = resampled_metric(metric.removeprefix("dev/"), answers, weights).reshape(2, 2).mean(axis=1)
        assert sorted(report.tests.means) == pytest.approx(sorted(means))
        assert sorted(report.folds_metric.values()) == pytest.approx(sorted(means))
    best = max(build(find_runs([str(sweep)]), "dev/accuracy", 20).folds_metric.values())
    _, text = run_compare(sweep, "--csv", tmp_path / "out.csv")
    assert "12 runs of 2 settings" in text
    assert re.search(r"lr=0.2 is better than lr=0.1 by .*, 2 seeds each, folds of a seed combined\)", text)
    assert "one model that predicts every pair with the fold that held it out. Its metric is in the column oof" in text
    assert line_with(text, "pairs/s").split()[:4] == ["#", "lr", "dev/accuracy", "oof"]
    assert re.search(rf" 0\.2 +0\.\d+ ± 0\.\d+ \(6\) +{best:.4f} ", text)
    table = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted((row["seed"], row["fold"]) for row in table) == sorted(
        (seed, fold_number) for seed in "01" for fold_number in "012" for _ in range(2)
    )
    assert {(row["mean_low"], row["mean_high"]) for row in table} == {
        ("", "")
    }  # that of combined folds is not the mean's
    assert report.to_pandas()[["mean_low", "mean_high"]].isna().all(axis=None)
    assert all(one["interval"] for one in as_dict(report)["settings"])


def test_single_seed_of_folds_uses_mcnemar(folded, run_compare):
    """With one seed of folds, the result is about these runs, and McNemar's test covers all pairs."""
    sweep, _ = folded
    for run in sweep.glob("*seed-1*"):
        shutil.rmtree(run)
    _, text = run_compare(sweep)
    assert "1 seed each, folds of a seed combined)" in text
    assert "McNemar: " in text
    assert "a setting with a single seed are about these very runs" in text


def test_missing_fold_is_not_compared(folded, run_compare):
    """A setting with a missing fold is not compared."""
    sweep, _ = folded
    shutil.rmtree(sweep / "lr-1_seed-1_fold-2")
    _, text = run_compare(sweep)
    assert "- lr=0.1: seed 1: fold 2 is missing of the 3 (dataset.num_folds), so not every pair" in text
    assert "11 runs of 2 settings" in text


def test_overlapping_folds_are_not_compared(folded, run_compare):
    """Folds that share a pair are not compared."""
    sweep, _ = folded
    rows = (sweep / "lr-1_seed-1_fold-2/predictions/dev.jsonl").read_text(encoding="utf-8")
    first = json.loads((sweep / "lr-1_seed-1_fold-1/predictions/dev.jsonl").read_text(encoding="utf-8").split("\n")[0])
    changed = re.sub(r'"id": \d+', f'"id": {first["id"]}', rows, count=1)
    (sweep / "lr-1_seed-1_fold-2/predictions/dev.jsonl").write_text(changed, encoding="utf-8")
    assert f"- lr=0.1: seed 1: the pair with id {first['id']} is in two of the folds" in run_compare(sweep)[1]


def test_full_disk_is_an_error(sweep, run_compare):
    """A full disk is reported with the flag and the file."""
    code, text = run_compare(sweep, "--json", "/dev/full")
    assert code == 2
    assert "--json /dev/full: cannot be written: No space left on device" in text


def test_secrets_are_redacted(tmp_path, run_compare):
    """Secrets in a config appear in no output."""
    for name, secret in (("a", "hunter2hunter2"), ("b", "correcthorse")):
        text = CONFIG.replace("kwargs: {}", f"kwargs:\n    api_key: {secret}\n    url: https://me:{secret}@host/{name}")
        write_run(tmp_path / name, text, ANSWERS[name == "b"])
    code, text = run_compare(tmp_path, "--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv")
    assert code == 0
    assert "url=https://***@host/a" in text
    for shown in (text, *((tmp_path / f"out.{kind}").read_text(encoding="utf-8") for kind in ("json", "csv"))):
        assert "hunter2" not in shown
        assert "correcthorse" not in shown


def test_undecodable_name_is_escaped(tmp_path, run_compare):
    """A directory name that is not valid UTF-8 is printed and written escaped."""
    (tmp_path / "runs" / os.fsdecode(b"\xff") / ".hydra").mkdir(parents=True)
    write_run(tmp_path / "runs/a", CONFIG, ANSWERS[0])
    files = [part for kind in ("csv", "json", "md") for part in (f"--{kind}", tmp_path / f"out.{kind}")]
    code, text = run_compare(tmp_path / "runs", *files)
    assert code == 0
    assert r"- \udcff: incomplete" in text
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["unfinished"][0]["name"] == "\udcff"


def test_three_classes_use_macro_means(tmp_path, run_compare):
    """Three classes are compared by every metric."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 300)
    for number, good in enumerate((2.0, 0.5)):
        logits = rng.normal(0, 1, (300, 3)) + good * (gold[:, None] == np.arange(3))
        text = CONFIG.replace("  labels:\n  - '0'\n  - '1'\n", "  labels: null\n").replace(
            "lr: 0.0005", f"lr: 0.{number + 1}"
        )
        write_run(tmp_path / f"{number}", text, answers_of(gold, logits))
    for metric in ("dev/f1", "dev/roc_auc", "dev/mcc", "dev/loss"):
        assert "lr=0.1 did better than lr=0.2 by" in run_compare(tmp_path, "--metric", metric)[1]


def test_single_dev_pair_is_not_an_error(tmp_path, run_compare):
    """A dev set with one pair is listed as not comparable."""
    for number, one in enumerate(ANSWERS[:2]):
        tiny = LabelledPredictions(one.gold[:1], one.predicted[:1], one.logits[:1])
        write_run(tmp_path / f"{number}", CONFIG.replace("lr: 0.0005", f"lr: 0.{number + 1}"), tiny)
    code, text = run_compare(tmp_path)
    assert code == 0
    assert "- lr=0.1: 0: predictions/dev.jsonl: contains fewer than 2 rows" in text


def test_saved_labels_define_the_class_order(tmp_path, run_compare):
    """The labels saved with the weights define the order of the classes."""
    for name, lr in (("a", "0.0005"), ("b", "0.1")):
        write_run(
            tmp_path / name,
            CONFIG.replace("lr: 0.0005", f"lr: {lr}").replace("labels:\n  - '0'\n  - '1'", "labels: null"),
            ANSWERS[0],
        )
        (tmp_path / name / "checkpoints/best").mkdir(parents=True)
        (tmp_path / name / "checkpoints/best/labels.json").write_text('["1", "0"]', encoding="utf-8")
    assert (
        "predictions/dev.jsonl: contains predictions that are not the most probable of 1, 0"
        in run_compare(tmp_path, columns=400)[1]
    )
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / name / "checkpoints")
    assert "lr=0.0005 and lr=0.1 do not differ at all in dev/accuracy (one run each)" in run_compare(tmp_path)[1]


def test_saved_config_is_read_as_dotted_keys(tmp_path):
    """A saved config is read as dotted keys with literal values."""
    (tmp_path / "config.yaml").write_text(
        "a: {b: {c: 1.0e-05}, d: [1, {e: 2}]}\nf: null\ng: {}\nh: 2026-01-01", "utf-8"
    )
    assert read_literal(tmp_path / "config.yaml") == {
        "a.b.c": 1e-5,
        "a.d": [1, {"e": 2}],
        "f": None,
        "g": {},
        "h": "2026-01-01",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [1.5, null, ~, true, 'yes', \"x\", .inf, 0x1F, 1e3, 1.0e+3, 12:30, 2026-01-01, -]\n",
        "a: {b: {}, c: []}\na: 2\n",
        "text: |\n  two\n  lines\nfolded: >\n  one\n  line\nempty:\n",
        "1: a\n",
        "a: &here 1\n",
        "a: !!str 1\nb: ! 2\n",
        "<<: {a: 1}\nb: 2\n",
        "- 1\n- a: 2\n",
        "",
        "--- 1\n--- 2\n",
        "a: =\n",
        "a: !!python/name:os.system x\n",
        "? [1, 2]\n: 3\n",
        "a: 2026-13-45\n",
    ],
)
def test_literal_yaml_is_that_of_a_safe_loader(text, tmp_path):
    """Configs are read in one pass, with the result of a safe loader, or refused where it refuses."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        expected = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        with pytest.raises(InputError, match="not readable YAML"):
            literal_yaml(path)
    else:
        assert repr(literal_yaml(path)) == repr(expected)


def test_command_does_not_import_torch(sweep):
    """The command does not import torch and scipy.stats, which is slow."""
    code = (
        "import sys; from afqmc.compare import main; assert main() == 0;"
        "assert not {'torch', 'scipy.stats'} & {*sys.modules}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(compare.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code, sweep], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "is better than" in ended.stdout


@pytest.mark.slow
def test_thousand_runs_take_seconds(tmp_path, run_compare):
    """A thousand runs are compared in less than ten seconds of CPU time."""
    write_sweep(tmp_path / "sweep", 200, 5, 200, rows=200)
    since = time.process_time()
    code, text = run_compare(tmp_path / "sweep")
    assert code == 0
    assert "1000 runs of 200 settings" in text
    assert time.process_time() - since < 10
