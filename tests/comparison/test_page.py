"""Tests of the page's content: two languages, curves, axes, importance, and no active content from the data."""

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated import answers_of, config_text, simulate, write_run, write_sweep
from sklearn.metrics import average_precision_score, roc_auc_score

from afqmc import compare
from afqmc.cli import run_command
from afqmc.comparison.builder import build
from afqmc.comparison.html.best_runs import best_runs, median_repetition
from afqmc.comparison.html.hyperparameters import axes, importance
from afqmc.comparison.html.json_embedding import base64_array, embed_json
from afqmc.comparison.html.learning_curves import MAX_POINTS, curves, downsample
from afqmc.comparison.html.page import as_html, asset
from afqmc.comparison.html.pair_texts import read_texts
from afqmc.data.sample import sample_files
from afqmc.results.predictions import Predictions
from afqmc.results.runs import find_runs
from afqmc.run_dir import Status
from afqmc.utils.errors import InputError
from afqmc.utils.language import catalogue

PACKAGE = Path(__file__).parents[2] / "afqmc/comparison"
ASSETS = PACKAGE / "html/assets"
CONFIG = config_text()


def report_of(*directories, metric=None):
    return build(find_runs([str(directory) for directory in directories]), metric, 20)


def runs_of(report):
    return [run for setting in report.settings for run in setting.runs]


def content(html):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(data)


def write_grid(directory, answers=None):
    """Write 24 runs: 3 learning rates that matter, 4 batch sizes that do not, 2 seeds."""
    rng = np.random.default_rng(5)
    answers = answers or simulate(rng, 12, 2, 300, quality=(0.5,) * 4 + (1.2,) * 4 + (2.5,) * 4, setting_sd=0.1)[0]
    for job, one in enumerate(answers):
        lr, size, seed = 10.0 ** (job // 8 - 5), 8 << (job // 2 % 4), job % 2 + 1
        text = CONFIG.replace("lr: 0.0005", f"lr: {lr!r}").replace("batch_size: 32", f"batch_size: {size}", 1)
        write_run(directory / f"{job}", text.replace("seed: 42", f"seed: {seed}"), one)
    return directory


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("grid"))


def page_texts():
    """Every text of the page itself: those of ``t`` in the scripts, and those of ``data-t``."""
    for path in ASSETS.glob("*.js"):
        yield from re.findall(r'\bt\(\s*"(.*?)"[,)\s]', path.read_text(encoding="utf-8"))
    yield from re.findall(r"data-t(?: hidden)?>(.*?)<", asset("page.html"))
    yield "This requires two comparable settings."


def test_catalogue_has_the_texts_of_the_page():
    """The catalogue has a translation of each text of the page, and no others but words in its data."""
    headers = {"run", "epoch", "time", "pairs/s", "accuracy", "data", "sweep"}
    facts = {"code", "precision", "device", "PyTorch", "uncommitted changes", "platform", "threads"}
    states = {status.value for status in Status} | {"incomplete", "unreadable"}
    assert set(catalogue()["page"]) == set(page_texts()) | headers | facts | states


def test_findings_and_caveats_are_bilingual(grid):
    """Every finding and caveat is in the page in both languages."""
    shown = content(as_html(report_of(grid)))
    sentences = [*shown["findings"], *shown["caveats"]]
    assert len(sentences) > 10
    for one, other in sentences:
        assert not re.search("[一-龥]", one)
        assert re.search("[一-龥]", other)
    (choosing,) = [pair for pair in sentences if "which makes its dev metrics optimistic" in pair[0]]
    assert "偏乐观" in choosing[1]


def test_embedded_json_has_no_markup():
    """Nothing in the data can close the script element."""
    hostile = {"</script><script>": ["<!--", "\u2028", "{{data}}", "\x1b[2J", "\u202e", "&lt;"]}
    text = embed_json(hostile)
    assert not set("<>&\u2028\x1b\u202e") & set(text)
    assert json.loads(text) == {"</script><script>": ["<!--", r"\u2028", "{{data}}", r"\x1b[2J", r"\u202e", "&lt;"]}


def test_placeholders_in_data_stay_text(tmp_path):
    """A run name that looks like a placeholder of the template is not replaced."""
    write_run(tmp_path / "{{script}}{{plotly}}", CONFIG, simulate(np.random.default_rng(0), 1, 1, 50)[0][0])
    assert content(as_html(report_of(tmp_path / "{{script}}{{plotly}}")))["runs"][0]["name"] == "{{script}}{{plotly}}"


def test_base64_array_round_trips():
    """An encoded array is decoded exactly."""
    values = np.array([[0.1, -2.5], [np.nan, 3e9]], dtype=np.float32)
    assert np.frombuffer(base64.b64decode(base64_array(values)), "<f4").tolist()[:2] == values.ravel().tolist()[:2]


def test_downsampling_keeps_ends_and_peaks():
    """A downsampled curve keeps its first and last point and every peak."""
    values = np.sin(np.arange(10_000) / 500)
    values[[1234, 7777]] = 50, -50
    kept = downsample(values, 100)
    assert len(kept) <= 100
    assert {0, 1234, 7777, 9999} <= set(kept.tolist())
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert downsample(values[:100], 100).tolist() == list(range(100))


@pytest.mark.parametrize("points", [101, 102, 149, 199, 1001])
def test_downsampling_respects_the_limit(points):
    """At any length, at most the given number of points is kept."""
    kept = downsample(np.random.default_rng(points).normal(size=points), 100)
    assert kept[0] == 0
    assert kept[-1] == points - 1
    assert len(kept) <= 100


def test_invalid_rows_are_not_drawn(tmp_path):
    """Rows without valid steps and finite values are ignored."""
    write_run(tmp_path / "a", CONFIG, simulate(np.random.default_rng(0), 1, 1, 50)[0][0])
    rows = ['{"step": 1, "epoch": Infinity, "train/loss": NaN}', '{"step": -1, "train/loss": 1}', '{"step": "x"}']
    rows += ['{"step": 9999999999999, "train/loss": 1}', '{"step": 2, "train/loss": 1e300, "epoch": true}', "{}"]
    rows += ['{"step": 3, "train/loss": 0.5, "nonfinite/ids": [1], "dev/x": null, "__proto__": 1, "epoch": 1.5}']
    (tmp_path / "a/metrics.jsonl").write_text("\n".join(rows), encoding="utf-8")
    drawn = curves(find_runs([str(tmp_path)]))
    assert drawn["names"] == ["train/loss"]
    assert drawn["points"] == 1
    assert drawn["runs"][0]["epochs_per_step"] == 0.5


def write_noisy_rows(path, rows, metrics, rng):
    """Write learning curves in which no two curves have their extremes at the same steps."""
    events = [
        {"step": 5 * step, **{f"dev/{name}": value for name, value in enumerate(rng.normal(size=metrics))}}
        for step in range(1, rows + 1)
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def test_curves_are_encoded_exactly_enough(tmp_path):
    """Steps are exact, also large ones and those that go back; values are exact to 1/65,535 of the curve's range."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.yaml").write_text(CONFIG, encoding="utf-8")
    steps, values = [3, 10, 900_000, 8, 20], [0.5, -1.25, 7.0, 7.0, 0.1]
    rows = [{"step": step, "x/a": value, "x/b": 0.25} for step, value in zip(steps, values, strict=True)]
    (tmp_path / "a/metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    drawn = curves(find_runs([str(tmp_path)]))
    assert drawn["names"] == ["x/a", "x/b"]
    ((is_wide, encoded),) = drawn["steps"]
    assert is_wide
    assert np.frombuffer(base64.b64decode(encoded), "<i4").cumsum().tolist() == steps
    for index, expected in enumerate((values, [0.25] * 5)):
        words = np.frombuffer(base64.b64decode(drawn["runs"][0]["curves"][index][1]), "<u2")
        low, high = words[:4].view("<f4")
        assert low + (high - low) * words[4:] / 65535 == pytest.approx(expected, abs=8.25 / 65535)


def test_curves_of_many_runs_are_small(tmp_path, monkeypatch):
    """Noisy curves of 1,000 runs take less than 2.2 MB, so that the page stays below 8 MB; here 20 runs."""
    monkeypatch.setattr("afqmc.comparison.html.learning_curves.MAX_POINTS", MAX_POINTS // 50)
    rng = np.random.default_rng(0)
    for job in range(20):
        (tmp_path / f"{job}").mkdir()
        (tmp_path / f"{job}/config.yaml").write_text(CONFIG, encoding="utf-8")
        write_noisy_rows(tmp_path / f"{job}/metrics.jsonl", 200, 12, rng)
    assert len(embed_json(curves(find_runs([str(tmp_path)])))) * 50 < 2.2e6


def test_many_curves_are_downsampled(tmp_path, monkeypatch):
    """Many curves are downsampled to the limit of the page."""
    monkeypatch.setattr("afqmc.comparison.html.learning_curves.MAX_POINTS", 3000)
    write_run(tmp_path / "a", CONFIG, simulate(np.random.default_rng(0), 1, 1, 50)[0][0], rows=300)
    result = curves(find_runs([str(tmp_path)]) * 5)
    lengths = [len(base64.b64decode(steps)) // (4 if is_wide else 2) for is_wide, steps in result["steps"]]
    assert result["points"] == 5 * 10 * 300
    assert result["max_points"] == 50
    assert max(lengths) <= 50


def write_pairs_of_settings(directory, runs_each):
    for number, one in enumerate(simulate(np.random.default_rng(0), 3, runs_each, 50)[0]):
        value = number // runs_each
        text = CONFIG.replace("lr: 0.0005", f"lr: {10.0**-value}").replace(
            "weight_decay: 0.01", f"weight_decay: {value}"
        )
        write_run(directory / f"{number}", text.replace("seed: 42", f"seed: {number}"), one)
    return report_of(directory)


def test_keys_that_change_together_share_an_axis(tmp_path):
    """Keys that always change together are one axis."""
    report = write_pairs_of_settings(tmp_path, 2)
    (axis,) = axes(report, runs_of(report))
    assert axis.keys == ("lr", "optimizer.weight_decay")
    assert axis.is_log
    assert sorted(axis.values) == [0.01, 0.01, 0.1, 0.1, 1, 1]


def test_random_search_keys_are_separate_axes(tmp_path):
    """Keys with a distinct value for every run are separate axes."""
    report = write_pairs_of_settings(tmp_path, 1)
    assert [axis.name for axis in axes(report, runs_of(report))] == ["lr", "weight_decay"]


def test_importance_is_reproducible(grid):
    """The setting that matters has nearly all importance, and the result is reproducible."""
    report = report_of(grid)
    result = axes(report, runs_of(report))
    assert [axis.name for axis in result] == ["lr", "batch_size"]
    shares, explanation = importance(report, runs_of(report), result)
    assert shares[0] > 0.9
    assert sum(shares) == pytest.approx(1)
    assert importance(report, runs_of(report), result)[0] == shares
    assert explanation.startswith("functional ANOVA of 24 runs")


@pytest.mark.parametrize(("settings", "seeds", "why"), [(3, 4, "these runs have 1"), (1, 3, "these runs have 0")])
def test_importance_requires_two_settings(settings, seeds, why, tmp_path):
    """Without two varying settings there is no importance, and the reason is given."""
    report = report_of(write_sweep(tmp_path / "s", settings, seeds, 100))
    shares, explanation = importance(report, runs_of(report), axes(report, runs_of(report)))
    assert shares is None
    assert explanation.endswith(why)


def test_importance_requires_ten_runs(grid):
    """With fewer than ten runs there is no importance, and the reason is given."""
    report = report_of(*[grid / str(number) for number in (0, 2, 8, 10)])
    shares, explanation = importance(report, runs_of(report), axes(report, runs_of(report)))
    assert shares is None
    assert explanation == "importance requires at least 10 runs; there are 4"


def test_best_run_curves_follow_from_predictions(grid):
    """Matrices and curves agree with the predictions and scikit-learn."""
    report = report_of(grid)
    shown = best_runs(report, with_sentences=False)
    assert len(shown["runs"]) == len(shown["results"]) == 8
    (run,) = median_repetition(report.settings[0], report.metric)
    answers = Predictions.of(run, report.metric).answers
    first, gold = shown["results"][0], answers.gold
    (true_false, false_true), (_, both) = first["confusion"]
    assert true_false + both == (answers.predicted == gold).sum()
    assert false_true == ((answers.predicted == 1) & (gold == 0)).sum()
    (curves_,) = first["by_class"]
    assert np.trapezoid(*curves_["roc"][::-1]) == pytest.approx(
        roc_auc_score(gold, answers.probabilities[:, 1]), abs=0.01
    )
    recall, precision = map(np.array, curves_["pr"])
    area = -(np.diff(recall) * precision[:-1]).sum()
    assert area == pytest.approx(average_precision_score(gold, answers.probabilities[:, 1]), abs=0.02)
    given, happened = curves_["calibration"]
    assert len(given) == 10
    assert np.mean(happened) == pytest.approx(gold.mean(), abs=0.01)
    assert curves_["brier"] == pytest.approx(((answers.probabilities[:, 1] - gold) ** 2).mean(), abs=1e-4)


def test_predicted_classes_take_two_bytes(grid):
    """The page stores the predicted class of each pair in two bytes, to stay small."""
    details = best_runs(report_of(grid), False)
    predicted = np.frombuffer(base64.b64decode(details["pairs"]["predicted"]), "<u2")
    assert len(predicted) == len(details["runs"]) * len(details["pairs"]["ids"])


def write_on_sample(directory, rows=40, **changes):
    """Write two runs on the first pairs of the embedded dev split, with its ids and labels."""
    pairs = [json.loads(line) for line in sample_files()["dev.json"].splitlines()[:rows]]
    gold = np.array([int(pair["label"]) for pair in pairs])
    rng = np.random.default_rng(1)
    for number in range(2):
        answers = answers_of(gold, rng.normal(size=(rows, 2)))
        text = CONFIG.replace("lr: 0.0005", f"lr: {number + 1}.0").replace(
            "max_dev_samples: null", f"max_dev_samples: {rows}"
        )
        for old, new in changes.items():
            text = re.sub(rf"^  {old}: .*$", f"  {old}: {new}", text, flags=re.MULTILINE)
        write_run(directory / f"{number}", text, answers, ids=[pair.get("id", at) for at, pair in enumerate(pairs)])
    return pairs


def sentences_of(directory):
    (run, *_) = find_runs([str(directory)])
    predictions = Predictions.of(run, "dev/accuracy")
    texts, why = read_texts(run, "dev", predictions)
    return None if texts is None else texts.sentences[:3], why


def test_sentences_are_those_of_the_pairs(tmp_path):
    """The page shows the sentences of the pairs, unless --no-sentences is given."""
    pairs = write_on_sample(tmp_path)
    result, why = sentences_of(tmp_path)
    assert why is None
    assert result == [[pair["sentence1"], pair["sentence2"]] for pair in pairs[:3]]
    assert pairs[0]["sentence1"] in as_html(report_of(tmp_path))
    assert pairs[0]["sentence1"] not in as_html(report_of(tmp_path), with_sentences=False)


def test_slices_by_a_column_of_the_data(tmp_path, monkeypatch, capsys):
    """--slice adds the values of a column of the dev file; an unknown column is refused by name."""
    rows = [{**json.loads(line), "topic": "loan"} for line in sample_files()["dev.json"].splitlines()[:120]]
    rows[0] |= {"topic": "card"}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "dev.json").write_text(text, encoding="utf-8")
    files = {"train_file": "dev.json", "dev_file": "dev.json", "test_file": "null"}
    write_on_sample(tmp_path / "runs", 120, source="files", path=str(tmp_path), **files)
    shown = best_runs(report_of(tmp_path / "runs"), False, ["topic"])["slices"]["rows"]
    assert [row[:2] for row in shown if "topic" in row[0][0]] == [[["topic = loan"] * 2, ["119"] * 2]]
    with pytest.raises(InputError, match="--slice topc: the data have no such column; did you mean 'topic'"):
        best_runs(report_of(tmp_path / "runs"), False, ["topc"])
    monkeypatch.setattr(sys, "argv", ["afqmc.compare", str(tmp_path / "runs"), "--slice", "topic"])
    assert run_command(compare.main) == 2
    assert "--slice topic: only with --html FILE" in capsys.readouterr().err


def test_sentences_of_folds_come_from_train(tmp_path):
    """The sentences of out-of-fold predictions are those of the train file."""
    pairs = [json.loads(line) for line in sample_files()["train.json"].splitlines()]
    for number, part in enumerate(np.array_split(np.random.default_rng(0).permutation(len(pairs)), 2)):
        answers = simulate(np.random.default_rng(number), 1, 1, len(part))[0][0]
        gold = np.array([int(pairs[row]["label"]) for row in part])
        text = CONFIG.replace("num_folds: null", "num_folds: 2").replace("fold: null", f"fold: {number}")
        given = answers.__class__(gold, answers.predicted, answers.logits)
        write_run(tmp_path / f"{number}", text, given, ids=[pairs[row].get("id", int(row)) for row in part])
    runs = find_runs([str(tmp_path)])
    together = Predictions.of_folds([Predictions.of(run, "dev/accuracy") for run in runs], "dev")
    texts, why = read_texts(runs[0], "dev", together)
    assert why is None
    ids = {pair.get("id", at): [pair["sentence1"], pair["sentence2"]] for at, pair in enumerate(pairs)}
    assert [texts.sentences[0], texts.sentences[7]] == [ids[together.rows.ids[0]], ids[together.rows.ids[7]]]


def test_file_with_other_pairs_is_not_shown(tmp_path):
    """A file whose ids and labels do not match is not shown."""
    write_on_sample(tmp_path, max_dev_samples="39")
    result, why = sentences_of(tmp_path)
    assert result is None
    assert why == "the dev pairs that 0 names are not those it was evaluated on"


def test_file_without_labels_is_not_shown(tmp_path):
    """A file that has the pairs but no labels (any more) is another one than the run was evaluated on."""
    rows = [json.loads(line) for line in sample_files()["dev.json"].splitlines()[:40]]
    rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    (tmp_path / "test.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"train_file": "test.json", "dev_file": "test.json", "test_file": "test.json"}
    write_on_sample(tmp_path / "runs", source="files", path=str(tmp_path), **files)
    run = find_runs([str(tmp_path / "runs")])[0]
    result = read_texts(run, "test", Predictions.of(run, "dev/accuracy"))
    assert result == (None, "the test pairs that 0 names are not those it was evaluated on")


def test_file_named_by_untrusted_run_is_not_quoted(tmp_path):
    """A file that an untrusted run names is neither shown nor quoted."""
    (tmp_path / "secret.json").write_text("the password is hunter2\n", encoding="utf-8")
    write_on_sample(
        tmp_path / "runs", source="files", path=str(tmp_path), train_file="secret.json", dev_file="secret.json"
    )
    result, why = sentences_of(tmp_path / "runs")
    assert result is None
    assert why == "the dev pairs that 0 names cannot be read on this machine"
    assert "hunter2" not in as_html(report_of(tmp_path / "runs"))


def test_page_contains_no_external_addresses(grid):
    """The page contains no address to load anything from."""
    html = as_html(report_of(grid))
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"https?:|//|@import|url\(", markup.replace("data:,", ""))
    assert "default-src 'none'" in markup
    assert "unsafe-eval" not in markup
    assert len(html) < 6_000_000


def test_page_without_complete_runs(tmp_path):
    """A page without complete runs lists the unfinished ones."""
    (tmp_path / "0-lr/.hydra").mkdir(parents=True)
    shown = content(as_html(report_of(tmp_path)))
    assert shown["unfinished"] == [
        [
            "0-lr",
            "incomplete",
            ["has no config.yaml: invalid, or never started", "没有 config.yaml：输入无效，或从未开始"],
        ]
    ]
    assert shown["runs"] == []


def test_html_option_writes_the_page(grid, tmp_path, monkeypatch, capsys):
    """--html writes the page, and --help describes --no-sentences."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["afqmc.compare", str(grid), *map(str, arguments)])
        return run_command(compare.main)

    assert call("--html", tmp_path / "r.html", "--no-sentences") == 0
    assert content((tmp_path / "r.html").read_text(encoding="utf-8"))["metric"] == "dev/accuracy"
    assert call("--html", tmp_path / "no/r.html") == 2
    assert capsys.readouterr().err.startswith("--html ")
    with pytest.raises(SystemExit):
        call("--help")
    assert "--no-sentences leave the sentence pairs out of the page" in " ".join(capsys.readouterr().out.split())
