"""Test the decision of a run: its files and figures, what it monitors, and runs without one."""

import json
import logging

import numpy as np
import pytest
from helpers import command, rows, summary, train

from afqmc.checkpoint.store import verify_checksums
from afqmc.config import compose
from afqmc.data.loading import load_dataset
from afqmc.evaluation.config import parse_goal
from afqmc.evaluation.decision import CrossFit, Decision, fit_decision
from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError


def predictions(run_dir, split):
    """Return rows, logits and labels of a prediction file."""
    lines = (run_dir.path / f"predictions/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    table = [json.loads(line) for line in lines]
    return table, np.array([row["logits"] for row in table]), [row.get("label") for row in table]


def test_files_of_a_run(small_run):
    """decision.json is fitted on all dev pairs, is covered by the checksums, and decides the test split."""
    verify_checksums(small_run.best)
    content = json.loads((small_run.best / "decision.json").read_text(encoding="utf-8"))
    assert content == summary(small_run)["decision"]
    assert "decision.json" in json.loads((small_run.best / "checksums.json").read_text(encoding="utf-8"))
    _, logits, labels = predictions(small_run, "dev")
    decision = fit_decision(logits, np.array(labels).astype(int), parse_goal("accuracy"))
    assert Decision.from_dict(content, 2).describe() == decision.describe()
    table, logits, _ = predictions(small_run, "test")
    outcome = Decision.from_dict(content, 2).apply(logits)
    assert [row["probability_calibrated"] for row in table] == pytest.approx(outcome.probabilities[:, 1])
    assert [int(row["prediction_decided"]) for row in table] == outcome.predicted.tolist()


def test_dev_figures_are_cross_fitted(small_run):
    """The dev columns and figures are those of parts that did not choose the decision; existing ones are unchanged."""
    table, logits, _ = predictions(small_run, "dev")
    dev = load_dataset(Predictor.load(small_run.path).config.dataset).dev
    cross_fit = CrossFit.of(dev, "accuracy", 5)
    outcome, best = cross_fit.decide(logits), summary(small_run)["best"]
    assert [row["probability_calibrated"] for row in table] == pytest.approx(outcome.probabilities[:, 1])
    assert [int(row["prediction_decided"]) for row in table] == outcome.predicted.tolist()
    for name, value in cross_fit.metrics(logits).items():
        assert best[f"dev/{name}"] == pytest.approx(value)
    assert best["dev/accuracy"] == np.mean(logits.argmax(axis=1) == cross_fit.labels)
    assert [row["prediction"] for row in table] == [str(index) for index in logits.argmax(axis=1)]
    beats = best["dev/accuracy_decided"] > best["dev/majority_accuracy"]
    assert summary(small_run)["beats_majority_decided"] == beats
    assert len(rows(small_run, "dev/f1_decided")) == len(rows(small_run, "dev/f1"))


def test_cost_per_pair(tmp_path, capsys):
    """With a cost as the goal, summary, table and evaluate show it for the likeliest and the decided labels."""
    run = train(tmp_path / "run", "decision.metric=cost:1,5", "epochs=1")
    table, logits, labels = predictions(run, "dev")
    best, gold = summary(run)["best"], np.array(labels).astype(int)

    def cost(predicted):
        return np.mean((predicted == 1) & (gold == 0)) + 5 * np.mean((predicted == 0) & (gold == 1))

    decided = np.array([int(row["prediction_decided"]) for row in table])
    assert best["dev/cost"] == pytest.approx(cost(logits.argmax(axis=1)))
    assert best["dev/cost_decided"] == pytest.approx(cost(decided))
    assert f"{best['dev/cost']:.4f}, decided {best['dev/cost_decided']:.4f}" in capsys.readouterr().out
    done = command("evaluate", str(run.path), "--json", cwd=tmp_path)
    evaluated = json.loads(done.stdout)
    assert [evaluated["cost"], evaluated["cost_decided"]] == pytest.approx([best["dev/cost"], best["dev/cost_decided"]])


def test_without_decision(tmp_path, small_run):
    """decision=none changes no weight and no other figure, and writes nothing of a decision."""
    run_dir = train(tmp_path / "run", "decision=none")
    assert (run_dir.best / "model.safetensors").read_bytes() == (small_run.best / "model.safetensors").read_bytes()
    assert not (run_dir.best / "decision.json").exists()
    assert list(predictions(run_dir, "dev")[0][0]) == ["id", "logits", "probability", "prediction", "label"]
    without, best = summary(run_dir), summary(small_run)["best"]
    assert not {"decision", "beats_majority_decided"} & set(without)
    assert without["best"] == {key: value for key, value in best.items() if key.partition("/")[2] not in DECIDED_NAMES}
    assert Predictor.load(run_dir.path).decision is None


@pytest.mark.parametrize(("metric", "choose"), [("mcc_decided", max), ("ece", min), ("brier_calibrated", min)])
def test_monitor(tmp_path, metric, choose):
    """The best weights are those with the best monitored figure."""
    run_dir = train(
        tmp_path / "run", "decision.metric=mcc", f"trainer.monitor=dev/{metric}", "trainer.eval_steps=4", "lr=3e-3"
    )
    values = rows(run_dir, f"dev/{metric}")
    assert len(values) == 6
    assert summary(run_dir)["best"][f"dev/{metric}"] == choose(values)


def test_dev_of_one_class(tmp_path, caplog):
    """If dev has one class only, the run says that there is no decision."""
    pair = {"sentence1": "怎么还款", "sentence2": "如何还花呗"}
    for name, labels in (("train", "01" * 8), ("dev", "0000")):
        lines = [json.dumps({**pair, "label": label}) + "\n" for label in labels]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    files = [f"dataset.{name}_file={tmp_path}/{name}.jsonl" for name in ("train", "dev")]
    with caplog.at_level(logging.WARNING):
        run_dir = train(tmp_path / "run", "dataset=files", *files, "dataset.test_file=null", "trainer.max_steps=1")
    assert "no threshold is chosen, and the likeliest label is predicted" in caplog.text
    assert not (run_dir.best / "decision.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["decision.metric=recall"], "decision.metric=recall: no such goal; allowed: accuracy, f1"),
        (["decision.metric=precision_at:1.5"], "decision.metric=precision_at:1.5: no such goal"),
        (["decision.metric=cost:0,1"], "decision.metric=cost:0,1: no such goal"),
        (["decision.folds=1"], "decision.folds=1: must be >= 2"),
        (
            ["decision=none", "trainer.monitor=dev/f1_decided"],
            "trainer.monitor=dev/f1_decided: also set decision.metric",
        ),
        (["trainer.monitor=dev/ece", "trainer.mode=max"], "trainer.mode=max: would keep the worst epoch"),
        (["trainer.monitor=dev/f1_decide"], "did you mean 'dev/f1_decided'?"),
    ],
)
def test_invalid_config(overrides, message):
    """An invalid goal, and a metric that the config cannot give, are refused before data are read."""
    with pytest.raises(InputError) as error:
        compose(["experiment=quickstart", *overrides])
    assert message in str(error.value)


def test_pretraining_has_no_decision():
    """In pretraining there are no classes: by default there is no decision, and another one is refused."""
    assert compose([], config_name="pretrain").decision.metric is None
    with pytest.raises(InputError, match="decision.metric=f1: not with afqmc.pretrain"):
        compose(["decision.metric=f1"], config_name="pretrain")


def test_costs_are_no_sweep():
    """The comma in cost:1,5 needs no quotes."""
    assert compose(["experiment=quickstart", "decision.metric=cost:1,5"]).decision.metric == "cost:1,5"
