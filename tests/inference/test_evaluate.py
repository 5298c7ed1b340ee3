"""Test what evaluate prints beside the metrics: changed dev data, metrics per class, and notes."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers import summary, train

from afqmc import evaluate
from afqmc.cli import run_command
from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.evaluation.metrics import classification_metrics
from afqmc.evaluation.per_class import metric_notes, per_class
from afqmc.inference.per_class_table import print_class_tables
from afqmc.inference.predictor import Predictor
from afqmc.utils.console import cell_width

ROWS = [
    {"id": f"p{n}", "sentence1": f"怎么还款{n}", "sentence2": f"如何还花呗{n * n}", "label": str(n % 2)}
    for n in range(24)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run, and the directory of its data."""
    home = tmp_path_factory.mktemp("evaluate")
    write(home / "dev.jsonl", ROWS)
    files = [f"dataset.{name}={home}/dev.jsonl" for name in ("train_file", "dev_file")]
    more = ("dataset.test_file=null", "dataset.max_length=32", "trainer.max_steps=2")
    return train(home / "run", "dataset=files", *files, *more)


@pytest.fixture
def copied(trained, tmp_path):
    """A run whose dev file may be changed; returns the run directory and the file."""
    shutil.copytree(trained.path, tmp_path / "run")
    config, file = tmp_path / "run/config.yaml", tmp_path / "dev.jsonl"
    config.write_text(config.read_text("utf-8").replace(str(trained.path.parent), str(tmp_path)), "utf-8")
    shutil.copy(trained.path.parent / "dev.jsonl", file)
    return tmp_path / "run", file


@pytest.fixture
def call(monkeypatch, capsys):
    """Call evaluate; returns the code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        code = run_command(evaluate.main)
        return code, *capsys.readouterr()

    return call


def flipped(rows):
    return [{**rows[0], "label": "1"}, *rows[1:]]


def edited(rows):
    return [{**rows[0], "sentence1": "别的句子"}, *rows[1:]]


def replaced(rows):
    return [{**row, "id": number, "sentence1": f"别的{number}"} for number, row in enumerate(rows)]


CHANGES = [
    (flipped, "1 relabelled (first: id 'p0')", {"relabelled": 1}),
    (lambda rows: rows[::-1], "different order", {"reordered": True}),
    (lambda rows: [*rows, {**rows[0], "id": "new"}], "24 pairs then, 25 now, 1 added", {"added": 1}),
    (lambda rows: rows[1:], "24 pairs then, 23 now, 1 removed", {"removed": 1}),
    (
        lambda rows: [{**row, "id": n, "sentence1": f"别的{n}"} for n, row in enumerate(rows)],
        "24 added, 24 removed",
        {"added": 24},
    ),
    (edited, "different sentences", {"sentences": True}),
]


@pytest.mark.parametrize("has_digest", [True, False])
@pytest.mark.parametrize(("change", "message", "fact"), CHANGES)
def test_changed_dev_data(change, message, fact, has_digest, copied, call):
    """Changes of the dev file since the run are reported."""
    run, file = copied
    if not has_digest:  # as a run of an earlier version
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        del summary["data"]
        (run / "summary.json").write_text(json.dumps(summary), "utf-8")
    code, out, error = call(run, "--json")
    assert (code, json.loads(out)["data_changed"], error) == (0, None, "")
    write(file, change(ROWS))
    code, out, error = call(run, "--json")
    changed = json.loads(out)["data_changed"]
    if change is edited and not has_digest:
        assert (changed, error) == (None, "")  # ids and labels are all that such a run recorded
        return
    assert code == 0
    assert fact.items() <= changed.items()
    assert f"warning: {file}: changed since the run: {message}; these metrics are not comparable" in error


def test_changed_ids_are_ignored(copied, call):
    """Other ids of the same pairs are not a change."""
    run, file = copied
    write(file, [{**row, "id": number} for number, row in enumerate(ROWS)])
    assert call(run)[2] == ""


@pytest.mark.parametrize("has_ids", [True, False])
def test_changed_order(has_ids, copied, call):
    """Another order of the same pairs is reported as such."""
    run, file = copied
    rows = ROWS if has_ids else [{key: row[key] for key in ("sentence1", "sentence2", "label")} for row in ROWS]
    predictions = [json.loads(line) for line in (run / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    if not has_ids:  # as such a run writes them: the ids are row numbers
        write(run / "predictions/dev.jsonl", [{**row, "id": number} for number, row in enumerate(predictions)])
    write(file, rows[1:] + rows[:1])
    assert f"warning: {file}: changed since the run: different order; these" in call(run)[2]
    write(file, flipped(rows)[::-1])
    assert "relabelled" in call(run)[2]


def test_duplicate_ids(copied, call):
    """With duplicate ids, files are compared row by row."""
    run, file = copied
    rows = [json.loads(line) for line in (run / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    write(run / "predictions/dev.jsonl", [{**row, "id": "same"} for row in rows])
    write(file, flipped([{**row, "id": "same"} for row in ROWS]))
    assert "1 relabelled (first: id row 0)" in call(run)[2]


@pytest.mark.parametrize("content", ["", "{", '{"id": 0}\n', '{"id": [1], "label": {}}\n'])
def test_unreadable_predictions(content, copied, call):
    """Unreadable predictions of the run do not prevent the evaluation."""
    run, file = copied
    (run / "predictions/dev.jsonl").write_text(content, "utf-8")
    assert call(run)[0] == 0
    write(file, flipped(ROWS))
    code, _, error = call(run)
    assert (code, "changed since the run: " in error) == (0, True)


@pytest.mark.parametrize("columns", [60, 80])
def test_tables_fit_terminal(columns, copied, call, monkeypatch):
    """The title is one line, and tables fit the width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    run, file = copied
    code, out, _ = call(run)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, f"{file}: 24 pairs")
    assert "confusion matrix (row: true, column: predicted)" in lines
    assert all(cell_width(line) <= columns for line in lines[1:] if "│" in line)
    details = json.loads(call(run, "--json")[1])
    assert [row["support"] for row in details["classes"]] == [12, 12]
    assert np.sum(details["confusion_matrix"]) == 24
    assert details["classes"][1]["f1"] == pytest.approx(details["f1"])


def test_per_class_matches_scikit_learn():
    """Metrics per class are those of scikit-learn."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(3)
    probabilities, gold = rng.dirichlet(np.ones(4), 200), rng.integers(0, 3, 200)  # the last class never occurs
    details = per_class(probabilities, gold, list("abcd"))
    predicted = probabilities.argmax(axis=1)
    assert details["confusion_matrix"] == confusion_matrix(gold, predicted, labels=range(4)).tolist()
    expected = precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[name] for row in details["classes"]] == pytest.approx(values.tolist())


@pytest.mark.parametrize(("count", "shown"), [(3, "不同意见"), (12, "#11"), (30, "most frequent confusions")])
def test_many_classes(count, shown, capsys, monkeypatch):
    """No number or label is truncated, whatever the number of classes."""
    monkeypatch.setenv("COLUMNS", "80")
    labels = ["不同意见", "[bold]", "很长的标签" * 3, *(f"类{n}" for n in range(count - 3))]
    probabilities = np.random.default_rng(1).dirichlet(np.ones(count), 1000 * count)
    details = per_class(probabilities, np.arange(1000 * count) % count, labels)
    print_class_tables(details, [])
    out = capsys.readouterr().out
    assert shown in out
    assert "[bold]" in out
    assert "…" not in out
    assert all(cell_width(line) <= 80 for line in out.splitlines())
    if count == 3:
        assert all(str(number) in out for row in details["confusion_matrix"] for number in row)


def notes(positive, gold, labels=("0", "1")):
    probabilities = np.stack([1 - np.array(positive), positive], axis=1)
    gold = np.array(gold)
    return metric_notes(classification_metrics(np.log(probabilities), gold), probabilities, gold, labels)


def test_metric_notes():
    """Contradictions of AUC and accuracy are explained."""
    good = notes([0.1, 0.2, 0.3, 0.4, 0.45], [0, 0, 1, 1, 1])
    assert "AUC 1.0000 measures the ranking, which is good; accuracy 0.4000 measures the decisions" in good[0]
    assert "(nearly) every pair is predicted as '0'" in good[0]
    assert good[1] == "on these pairs a threshold of 0.2500 gives accuracy 1.0000"
    assert "ranked in reverse order" in notes([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])[0]
    assert "accuracy says little here" in notes([0.1, 0.3, 0.2, 0.15, 0.25], [0, 0, 0, 1, 1])[0]
    assert notes([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == []
    assert notes([0.1, 0.2], [0, 0]) == []  # AUC is undefined


def test_decided_figures(trained, call, tmp_path):
    """On dev, decided figures are cross-fitted as in the run; on other pairs they are those of decision.json."""
    best = summary(trained)["best"]
    _, out, _ = call(trained.path, "--json")
    on_dev = json.loads(out)
    assert {name: on_dev[name] for name in DECIDED_NAMES} == {
        name: pytest.approx(best[f"dev/{name}"]) for name in DECIDED_NAMES
    }
    assert "decided and calibrated figures: cross-fitted, as the decision was chosen on dev" in on_dev["notes"]
    write(tmp_path / "same.jsonl", ROWS)  # a copy of dev is recognised
    _, out, _ = call(trained.path, "--data", tmp_path / "same.jsonl", "--json")
    assert json.loads(out)["f1_decided"] == on_dev["f1_decided"]
    write(tmp_path / "other.jsonl", [{**row, "sentence1": row["sentence2"]} for row in ROWS[:10]])
    _, out, _ = call(trained.path, "--data", tmp_path / "other.jsonl", "--json")
    other, predictor = json.loads(out), Predictor.load(trained.path)
    pairs = predictor.read_pairs(tmp_path / "other.jsonl", labelled=True)
    logits = predictor.evaluate(pairs).logits
    expected = predictor.decision.apply(logits).metrics(np.asarray(pairs.labels))
    assert {name: other[name] for name in DECIDED_NAMES} == pytest.approx(expected)
    assert any(note.startswith("decided and calibrated figures: threshold ") for note in other["notes"])


def test_decided_figures_of_a_mean(trained, call, tmp_path):
    """The mean of several runs is decided as one model: cross-fitted on dev in any order, else dev's decision."""
    shutil.copytree(trained.path, tmp_path / "copy")
    runs = trained.path, tmp_path / "copy"
    for name, rows in (
        ("same", ROWS),
        ("reordered", ROWS[::-1]),
        ("other", [ROWS[0] | {"sentence1": "a"}, *ROWS[1:9]]),
    ):
        write(tmp_path / f"{name}.jsonl", rows)
    one, mean = (json.loads(call(*paths, "--data", tmp_path / "same.jsonl", "--json")[1]) for paths in (runs[:1], runs))
    assert {name: mean[name] for name in ("accuracy", *DECIDED_NAMES)} == {
        name: pytest.approx(one[name], abs=1e-4) for name in ("accuracy", *DECIDED_NAMES)
    }
    assert mean["intervals"]["f1_decided"] == pytest.approx(one["intervals"]["f1_decided"], abs=1e-4)
    cross_fitted = "decided and calibrated figures: cross-fitted, as the decision was chosen on dev"
    for paths in (runs[:1], runs):
        for name, is_cross_fitted in (("same", True), ("reordered", True), ("other", False)):
            result = json.loads(call(*paths, "--data", tmp_path / f"{name}.jsonl", "--json")[1])
            assert (cross_fitted in result["notes"]) == is_cross_fitted
            assert {*DECIDED_NAMES} <= {*result}
    _, out, _ = call(*runs, "--data", tmp_path / "other.jsonl")
    assert "f1 decided" in out
    stored = tmp_path / "copy/predictions/dev.jsonl"
    stored.write_text("".join(stored.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    result = json.loads(call(*runs, "--data", tmp_path / "same.jsonl", "--json")[1])
    assert any(note.startswith("the mean is not decided as one model: the dev pairs of") for note in result["notes"])
    assert "f1_decided" not in result
