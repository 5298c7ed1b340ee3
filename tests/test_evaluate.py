"""What evaluate says beyond the figures: changed dev data, figures per class, AUC and accuracy that disagree."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers import train

from afqmc import evaluate
from afqmc.cli import run_command
from afqmc.evaluation.metrics import classification_metrics
from afqmc.evaluation.per_class import metric_notes, per_class
from afqmc.inference.per_class_table import show_classes
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
    return train(home / "run", "dataset=jsonl", *files, *more)


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
@pytest.mark.parametrize(("change", "told", "fact"), CHANGES)
def test_dev_data_that_changed_since_the_run_are_reported(change, told, fact, has_digest, copied, call):
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
    assert f"warning: {file}: changed since the run: {told}; these figures are not comparable" in error


def test_other_ids_of_the_same_pairs_are_no_change(copied, call):
    run, file = copied
    write(file, [{**row, "id": number} for number, row in enumerate(ROWS)])
    assert call(run)[2] == ""


@pytest.mark.parametrize("has_ids", [True, False])
def test_the_same_pairs_in_another_order_are_reported_as_such(has_ids, copied, call):
    run, file = copied
    rows = ROWS if has_ids else [{key: row[key] for key in ("sentence1", "sentence2", "label")} for row in ROWS]
    predictions = [json.loads(line) for line in (run / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    if not has_ids:  # as such a run writes them: the ids are row numbers
        write(run / "predictions/dev.jsonl", [{**row, "id": number} for number, row in enumerate(predictions)])
    write(file, rows[1:] + rows[:1])
    assert f"warning: {file}: changed since the run: different order; these" in call(run)[2]
    write(file, flipped(rows)[::-1])
    assert "relabelled" in call(run)[2]


def test_ids_that_are_not_unique_are_compared_row_by_row(copied, call):
    run, file = copied
    rows = [json.loads(line) for line in (run / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    write(run / "predictions/dev.jsonl", [{**row, "id": "same"} for row in rows])
    write(file, flipped([{**row, "id": "same"} for row in ROWS]))
    assert "1 relabelled (first: id row 0)" in call(run)[2]


@pytest.mark.parametrize("content", ["", "{", '{"id": 0}\n', '{"id": [1], "label": {}}\n'])
def test_predictions_that_cannot_be_read_stop_no_evaluation(content, copied, call):
    run, file = copied
    (run / "predictions/dev.jsonl").write_text(content, "utf-8")
    assert call(run)[0] == 0
    write(file, flipped(ROWS))
    code, _, error = call(run)
    assert (code, "changed since the run: " in error) == (0, True)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_title_is_one_line_and_classes_are_shown_at_any_width(columns, copied, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    run, file = copied
    code, out, _ = call(run)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, f"{file}: 24 pairs")
    assert "confusion matrix (row: true, column: predicted)" in lines
    assert all(cell_width(line) <= columns for line in lines[1:] if "│" in line)
    found = json.loads(call(run, "--json")[1])
    assert [one["support"] for one in found["classes"]] == [12, 12]
    assert np.sum(found["confusion_matrix"]) == 24
    assert found["classes"][1]["f1"] == pytest.approx(found["f1"])


def test_figures_per_class_are_those_of_scikit_learn(little_garbage):
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(3)
    probabilities, gold = rng.dirichlet(np.ones(4), 200), rng.integers(0, 3, 200)  # the last class never occurs
    found = per_class(probabilities, gold, list("abcd"))
    predicted = probabilities.argmax(axis=1)
    assert found["confusion_matrix"] == confusion_matrix(gold, predicted, labels=range(4)).tolist()
    expected = precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [one[name] for one in found["classes"]] == pytest.approx(values.tolist())


@pytest.mark.parametrize(("count", "shown"), [(3, "不同意见"), (12, "#11"), (30, "most frequent confusions")])
def test_no_number_is_cut_however_many_classes_there_are(count, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    labels = ["不同意见", "[bold]", "很长的标签" * 3, *(f"类{n}" for n in range(count - 3))]
    probabilities = np.random.default_rng(1).dirichlet(np.ones(count), 1000 * count)
    found = per_class(probabilities, np.arange(1000 * count) % count, labels)
    show_classes(found, [])
    out = capsys.readouterr().out
    assert shown in out
    assert "[bold]" in out
    assert "…" not in out
    assert all(cell_width(line) <= 80 for line in out.splitlines())
    if count == 3:
        assert all(str(number) in out for row in found["confusion_matrix"] for number in row)


def told(positive, gold, labels=("0", "1")):
    probabilities = np.stack([1 - np.array(positive), positive], axis=1)
    gold = np.array(gold)
    return metric_notes(classification_metrics(np.log(probabilities), gold), probabilities, gold, labels)


def test_an_auc_that_accuracy_contradicts_is_explained():
    good = told([0.1, 0.2, 0.3, 0.4, 0.45], [0, 0, 1, 1, 1])
    assert "AUC 1.0000 judges the ranking, which is good; accuracy 0.4000 judges the decisions" in good[0]
    assert "(nearly) every pair is predicted as '0'" in good[0]
    assert good[1] == "on these pairs a threshold of 0.2500 gives accuracy 1.0000"
    assert "ranked the wrong way round" in told([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])[0]
    assert "accuracy says little here" in told([0.1, 0.3, 0.2, 0.15, 0.25], [0, 0, 0, 1, 1])[0]
    assert told([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == []
    assert told([0.1, 0.2], [0, 0]) == []  # AUC is undefined
