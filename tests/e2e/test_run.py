"""A run: it learns, repeats bit for bit, keeps the best weights, and leaves a complete directory."""

import json
import shutil

import numpy as np
import pytest
from helpers import command, prepared, rows, small, summary, train
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from afqmc.data.sample import sample_files
from afqmc.inference.predictor import Predictor
from afqmc.runner.experiment import run_experiment
from afqmc.utils.errors import InputError

SIXTEEN = ("dataset.max_train_samples=16", "dataset.max_dev_samples=16")


@pytest.fixture
def run(small_run):
    """Return the shared run."""
    return small_run


def test_files_of_run_directory(run):
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "environment.json", "metrics.jsonl", "summary.json", "status.json",
        "predictions/dev.jsonl", "predictions/test.jsonl",
        "checkpoints/best/model.safetensors", "checkpoints/best/config.json", "checkpoints/best/tokenizer.json",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".new"))]


def test_summary_has_best_evaluation(run):
    figures = summary(run)
    assert figures["status"] == "completed"
    assert {"step", "epoch", "dev/loss", "dev/accuracy", "dev/f1", "dev/roc_auc", "dev/mcc"} <= figures["best"].keys()
    assert figures["best"]["dev/accuracy"] == max(rows(run, "dev/accuracy"))
    assert figures["train_pairs_per_second"] > 0
    assert figures["total_seconds"] > figures["train_seconds"] > 0


def test_rows_of_metrics(run):
    """metrics.jsonl has a row per step and per evaluation."""
    assert len(rows(run, "train/loss")) == 24
    assert len(rows(run, "dev/accuracy")) == 2
    assert rows(run, "train/lr")[0] == pytest.approx(5e-4)
    assert rows(run, "train/lr")[-1] == pytest.approx(5e-4 / 24)


def test_predictions(run):
    """Predictions are in the order of the file, with ids, and labels if there are any."""
    dev = [json.loads(line) for line in (run.path / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in dev] == list(range(64))
    assert all(row["prediction"] == ("1" if row["probability"] > 0.5 else "0") for row in dev)
    correct = np.mean([row["prediction"] == row["label"] for row in dev])
    assert correct == summary(run)["best"]["dev/accuracy"]
    test = [json.loads(line) for line in (run.path / "predictions/test.jsonl").read_text("utf-8").splitlines()]
    assert len(test) == 16
    assert "label" not in test[0]


def same_weights(run_a, run_b):
    a, b = (load_file(run.best / "model.safetensors") for run in (run_a, run_b))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_seed_determines_weights(run, tmp_path):
    """The same seed gives the same bits, another seed does not."""
    again = train(tmp_path / "again")
    other = train(tmp_path / "other", "seed=7")
    assert rows(again, "train/loss") == rows(run, "train/loss")
    assert same_weights(again, run)
    assert not same_weights(other, run)


def test_accumulation_equals_whole_batch(tmp_path):
    off = ("model.config_overrides.hidden_dropout_prob=0.0", "model.config_overrides.attention_probs_dropout_prob=0.0")
    options = (*off, "model.classifier_dropout=0.0", "objective.class_weights=[1,2.2]", "objective.label_smoothing=0.1")
    single = train(tmp_path / "single", *options)
    accumulated = train(tmp_path / "accumulated", *options, "trainer.gradient_accumulation_steps=4")
    np.testing.assert_allclose(rows(accumulated, "train/loss"), rows(single, "train/loss"), rtol=0, atol=2e-6)


def test_class_weights_may_be_integers(tmp_path):
    weights = "objective.class_weights="
    single, decimal = (train(tmp_path / kind, weights + kind, "trainer.max_steps=2") for kind in ("[1,2]", "[1.0,2.0]"))
    assert rows(single, "train/loss") == rows(decimal, "train/loss")


def test_overfits_sixteen_pairs(tmp_path):
    run = train(tmp_path / "run", "debug=overfit", *SIXTEEN, "batch_size=16", "epochs=60", "lr=2e-3")
    assert summary(run)["best"]["dev/accuracy"] == 1.0


def test_debug_overfit_evaluates_training_pairs(tmp_path):
    data = prepared(tmp_path, "debug=overfit", *SIXTEEN).data
    assert data.dev.sentence1 == data.train.sentence1


def test_max_steps_and_eval_steps(tmp_path):
    run = train(tmp_path / "run", "trainer.max_steps=10", "trainer.eval_steps=4")
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "dev/loss" in row] == [4, 8, 10]


def test_early_stopping(tmp_path):
    stop = ("trainer.monitor=dev/loss", "trainer.patience=2", "trainer.min_delta=10", "trainer.eval_steps=2")
    run = train(tmp_path / "run", *stop)
    assert summary(run)["steps"] == 6


def test_lowest_monitored_loss_is_best(tmp_path):
    run = train(tmp_path / "run", "trainer.monitor=dev/loss", "trainer.eval_steps=5", "lr=3e-3")
    assert summary(run)["best"]["dev/loss"] == min(rows(run, "dev/loss"))


def test_keep_weights(tmp_path):
    """``keep_weights`` limits how many past weights are kept; null keeps all."""
    run = train(tmp_path / "run", "trainer.eval_steps=6", "checkpoint.keep_weights=2")
    assert [path.name for path in run.saved_weights()] == ["step-18", "step-24"]
    every = train(tmp_path / "every", "trainer.eval_steps=6", "checkpoint.keep_weights=null")
    assert [path.name for path in every.saved_weights()] == ["step-6", "step-12", "step-18", "step-24"]


def test_gradient_norm_is_logged(tmp_path):
    run = train(tmp_path / "run", "trainer.max_grad_norm=0.5", "trainer.max_steps=3")
    assert len(rows(run, "train/grad_norm")) == 3


def test_streaming_trains_on_every_pair(tmp_path):
    for name, content in sample_files().items():
        (tmp_path / name).write_bytes(content)
    files = ("dataset=files", f"dataset.path={tmp_path}", "dataset.test_file=null", "dataset.max_length=64")
    named = ("dataset.train_file=train.json", "dataset.dev_file=dev.json", "dataset.streaming=true")
    run = train(tmp_path / "run", *files, *named, "dataset.shuffle_buffer_size=40", "objective.class_weights=balanced")
    assert len(rows(run, "train/loss")) == 24
    assert not (run.path / "predictions/test.jsonl").exists()


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_precisions(precision, tmp_path):
    """Training works in both precisions of a CPU, and weights are saved in float32."""
    run = train(tmp_path / "run", f"trainer.mixed_precision={precision}", "trainer.max_steps=4")
    assert np.isfinite(rows(run, "train/loss")).all()
    assert load_file(run.best / "model.safetensors")["classifier.weight"].dtype == np.float32


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "first_last_avg", "pooler_output"])
def test_poolings(pooling, tmp_path):
    """Every pooling can be trained, and the loaded weights give the recorded metrics."""
    run = train(tmp_path / "run", f"model.pooling={pooling}", "trainer.max_steps=4")
    predictor = Predictor.load(run.path)
    figures = predictor.evaluate(predictor.read_pairs(None, labelled=True)).metrics
    recorded = summary(run)["best"]
    assert {f"dev/{name}": value for name, value in figures.items()}.items() <= recorded.items()


def test_evaluate_and_predict_repeat_the_run(run, tmp_path):
    """``evaluate`` and ``predict`` in a new process give the figures and probabilities of the run."""
    for name, content in sample_files().items():
        lines = content.decode().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[: 16 if name == "test.json" else 64]), encoding="utf-8")
    scored = command("evaluate", str(run.path), "--data", "dev.json", "--json", cwd=tmp_path)
    recorded = summary(run)["best"]
    assert {f"dev/{k}": v for k, v in json.loads(scored.stdout).items() if f"dev/{k}" in recorded} == {
        key: value for key, value in recorded.items() if key.startswith("dev/") and key != "dev/asymmetry"
    }
    predicted = command("predict", str(run.path), "test.json", "-o", "out.jsonl", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    rows, own = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (tmp_path / "out.jsonl", run.path / "predictions/test.jsonl")
    )
    columns = {"id": "id", "probability": "probability_calibrated", "prediction": "prediction_decided"}
    assert rows == [{key: row[column] for key, column in columns.items()} for row in own]


def test_clue_submission(run, tmp_path):
    (tmp_path / "test.json").write_bytes(b"\n".join(sample_files()["test.json"].splitlines()[:9]) + b"\n")
    for out in ("afqmc_predict.json", "submit.zip"):
        assert command("predict", str(run.path), "test.json", "-o", out, "--clue", cwd=tmp_path).returncode == 0
    text = (tmp_path / "afqmc_predict.json").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["id"] for line in lines] == list(range(9))
    assert all(line.keys() == {"id", "label"} and line["label"] in {"0", "1"} for line in lines)
    shutil.unpack_archive(tmp_path / "submit.zip", tmp_path / "zip")
    assert (tmp_path / "zip" / "afqmc_predict.json").read_text(encoding="utf-8") == text


def test_checkpoint_loads_with_transformers(tmp_path):
    """transformers alone loads the best weights, and gives the recorded probability."""
    run = train(tmp_path / "run", "model.pooling=pooler_output", "trainer.max_steps=3")
    tokenizer = AutoTokenizer.from_pretrained(run.best)
    model, loading = AutoModelForSequenceClassification.from_pretrained(run.best, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    first = json.loads(sample_files()["dev.json"].splitlines()[0])
    inputs = tokenizer(first["sentence1"], first["sentence2"], return_tensors="pt")
    probability = model.eval()(**inputs).logits.softmax(-1)[0, 1].item()
    recorded = json.loads((run.path / "predictions/dev.jsonl").read_text("utf-8").splitlines()[0])
    assert probability == pytest.approx(recorded["probability"], abs=1e-6)
    assert model.config.id2label == {0: "0", 1: "1"}


def test_encoder_loads_with_transformers(run):
    _, loading = AutoModel.from_pretrained(run.best, output_loading_info=True, add_pooling_layer=False)
    assert not loading["missing_keys"]


def test_custom_model(tmp_path, monkeypatch):
    """A custom model is trained by its ``_target_``; its code is run again only with ``--trust``."""
    (tmp_path / "my_model.py").write_text(
        "import torch\n"
        "class Bag(torch.nn.Module):\n"
        "    def __init__(self, num_labels, vocab_size, pad_token_id, width=8):\n"
        "        super().__init__()\n"
        "        self.bag = torch.nn.EmbeddingBag(vocab_size, width, padding_idx=pad_token_id)\n"
        "        self.out = torch.nn.Linear(width, num_labels)\n"
        "    def forward(self, input_ids, **_):\n"
        "        return self.out(self.bag(input_ids))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = train(tmp_path / "run", "model._target_=my_model.Bag", "+model.kwargs.width=4", "trainer.max_steps=3")
    refused = command("evaluate", str(run.path), cwd=tmp_path)
    assert refused.returncode == 2
    assert "--trust" in refused.stderr
    trusted = command("evaluate", str(run.path), "--trust", "--json", cwd=tmp_path)
    assert json.loads(trusted.stdout)["accuracy"] == summary(run)["best"]["dev/accuracy"]
    with pytest.raises(InputError, match=r"model\.kwargs\.widht.*did you mean 'width'"):
        train(tmp_path / "wrong", "model._target_=my_model.Bag", "+model.kwargs.widht=4")


def test_occupied_directory_is_refused(run):
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        run_experiment(small(), run)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_failed_run_has_no_summary(tmp_path):
    """A failed run has status ``failed``, a traceback and no summary."""
    with pytest.raises(RuntimeError, match="loss is"):
        train(tmp_path / "run", "lr=10", "optimizer=sgd", "optimizer.momentum=0.99")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "failed"
    assert "Traceback" in status["traceback"]
    assert not (tmp_path / "run" / "summary.json").exists()
