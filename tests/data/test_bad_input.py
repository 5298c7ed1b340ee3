"""Invalid input: one message, exit code 2, no traceback."""

import json
import os
import sys

import pytest
from helpers import command

from afqmc import run as entry
from afqmc.cli import run_command
from afqmc.data.sample import sample_files

ROWS = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:40]]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Return a function that runs with invalid overrides and returns the message."""
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "dev.jsonl", ROWS[:20])

    def call(*overrides):
        monkeypatch.chdir(tmp_path)
        own = ["dataset=files", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "dataset.max_length=64"]
        arguments = ["afqmc.run", *own, "model=mini", "tracker=none", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        code = run_command(entry.main)
        errors = capsys.readouterr().err.strip()
        assert code == 2, errors
        assert "Traceback" not in errors
        return errors

    return call


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+foo=1", "foo: no such key"),
        ("+trainer.max_step=1", "trainer.max_step: no such key; did you mean 'max_steps'?"),
        ("trainer.patiense=1", "did you mean 'patience'?"),
        ("optimizer.weight_dekay=1", "did you mean 'weight_decay'?"),
        ("lr=abc", "lr=abc: must be a number > 0 and <= 10 (peak learning rate)"),
        ("lr=-1", "lr=-1.0: must be > 0 and <= 10"),
        ("dataset.max_length=2", "dataset.max_length=2: must be >= 8"),
        ("model=bert-bas", "did you mean 'bert-base-chinese'?"),
        ("trainer.mixed_precision=fp16", "allowed on this machine: auto, no, bf16"),
        ("optimizer._target_=no_such_module.Adam", "is it installed here?"),
        ("dataset.train_file=trian.jsonl", "no such file; did you mean 'train.jsonl'?"),
        ("dataset.sentence1_field=question1", "train.jsonl:1: no 'question1'"),
        ("dataset.labels=[no,yes]", "train.jsonl:1: label "),
        ("lr=[1", "lr=[1: cannot be read"),
        (
            f"hydra.run.dir={'x' * 300}",
            "cannot be created (File name too long); a writable directory is needed",
        ),
    ],
)
def test_invalid_override(override, message, refused):
    """The message names the override and what is allowed; tests/runner/test_validation.py tries many more."""
    assert message in refused(override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.jsonl: holds no pairs"),
        (b'{"sentence1": "a", "sentence2": "b", "label": "0"}\n{"sentence1": \n', "bad.jsonl:2: broken JSON"),
        (b'{"sentence1": "a", "label": "0"}\n', "bad.jsonl:1: no 'sentence2'"),
        (b'{"sentence1": "a", "sentence2": "b"}\n', "bad.jsonl:1: no 'label'"),
        (b'{"sentence1": "a", "sentence2": " ", "label": "0"}\n', "bad.jsonl:1: 'sentence2' is empty"),
        (b'{"sentence1": "a", "sentence2": "b", "label": "2"}\n', "bad.jsonl:1: label '2' is not one of: 0, 1"),
        (
            b'{"sentence1": "a", "sentence2": "b", "label": "0"}\n{"sentence1": "a", "sentence2": "b", "label": 1}\n',
            "bad.jsonl:2: mixed label types",
        ),
        ('{"sentence1": "借", "sentence2": "b", "label": "0"}\n'.encode("gb18030"), "bad.jsonl:1: is not valid UTF-8"),
        (b'[{"sentence1": "a"}]\n', "bad.jsonl:1: is list; each line must be a JSON object"),
    ],
)
def test_invalid_file(content, message, refused, tmp_path):
    """The message names the file and the line."""
    (tmp_path / "bad.jsonl").write_bytes(content)
    assert message in refused("dataset.dev_file=bad.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission(refused, tmp_path):
    """A file that may not be read is rejected."""
    (tmp_path / "dev.jsonl").chmod(0)
    assert "cannot be read" in refused()


def test_invalid_value_creates_no_directory(refused, tmp_path):
    """No output directory is created for an invalid value."""
    refused("lr=-1")
    assert not (tmp_path / "outputs").exists()


def test_unreachable_hub_names_alternatives(tmp_path):
    """If the hub is unreachable, the message names a mirror, a local directory and a small model."""
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    result = command("run", "dataset=sample", "tracker=none", cwd=tmp_path, env=unreachable)
    assert result.returncode == 2
    for way in ("http://127.0.0.1:9 (no answer: ", "HF_ENDPOINT=", "model.name_or_path=DIR", "model=mini"):
        assert way in result.stderr
    assert "Traceback" not in result.stderr


def test_failed_download_names_alternatives(tmp_path):
    """If the data set cannot be downloaded, the message names a path, another URL and the quickstart."""
    cache = {"AFQMC_CACHE": str(tmp_path / "cache")}
    url = "dataset.url=http://127.0.0.1:9/a.zip"
    result = command("run", "model=mini", "tracker=none", url, cwd=tmp_path, env=cache)
    assert result.returncode == 2
    for way in ("dataset.path=DIR_OR_ZIP", "dataset.url=", "experiment=quickstart"):
        assert way in result.stderr


def test_traceback_on_request(tmp_path):
    """HYDRA_FULL_ERROR=1 shows the traceback."""
    result = command("run", "lr=-1", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert result.returncode != 0
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_directory_without_run(name, tmp_path):
    """evaluate and predict reject a directory that is not a run."""
    more = ("x.jsonl", "-o", "out.jsonl") if name == "predict" else ()
    result = command(name, str(tmp_path), *more, cwd=tmp_path)
    assert (result.returncode, result.stderr.strip()) == (2, f"{tmp_path}: not a run directory (it has no config.yaml)")


def test_data_mismatch_before_model_is_built(refused, monkeypatch):
    """A config that does not fit the data is rejected before the model is built."""
    monkeypatch.setattr("afqmc.runner.setup.build_tokenizer", None)
    assert "a list of 2 positive" in refused("objective.class_weights=[1,2,3]")
    assert "this run has 7 steps" in refused("scheduler.warmup_steps=7", "trainer.max_steps=7")


def test_missing_model_before_data_is_read(refused, monkeypatch):
    """A model directory that does not exist is rejected before the data is read."""
    monkeypatch.setattr("afqmc.runner.tasks.load_dataset", None)
    assert "no such directory" in refused("model.name_or_path=./nowhere")


def test_directory_of_refused_run_is_reusable(refused, tmp_path, monkeypatch):
    """The corrected command may use the directory of a refused run; a complete run is not overwritten."""
    options = ("hydra.run.dir=here", "trainer.max_steps=1", "dataset.max_dev_samples=8")
    refused(*options, "dataset.sentence1_field=question")
    assert json.loads((tmp_path / "here/status.json").read_text())["status"] == "refused"
    sys.argv = [argument for argument in sys.argv if "question" not in argument]
    assert run_command(entry.main) == 0
    assert (tmp_path / "here/summary.json").exists()
    assert "here: already holds a run" in refused(*options)
