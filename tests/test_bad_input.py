"""Bad input: one clear message, exit code 2, no traceback."""

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
    """Run the entry with a dataset of one's own and return what a person reads."""
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "dev.jsonl", ROWS[:20])

    def call(*overrides):
        monkeypatch.chdir(tmp_path)
        own = ["dataset=jsonl", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "dataset.max_length=64"]
        arguments = ["afqmc.run", *own, "model=mini", "tracker=none", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        code = run_command(entry.main)
        errors = capsys.readouterr().err.strip()
        assert code == 2, errors
        assert "Traceback" not in errors
        return errors

    return call


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lrr=1", "lrr: no such key; did you mean 'lr'?"),
        ("+foo=1", "foo: no such key"),
        ("+trainer.max_step=1", "trainer.max_step: no such key; did you mean 'max_steps'?"),
        ("trainer.patiense=1", "did you mean 'patience'?"),
        ("optimizer.weight_dekay=1", "did you mean 'weight_decay'?"),
        ("lr=abc", "lr=abc: must be a number > 0 and <= 10 (peak learning rate)"),
        ("lr=-1", "lr=-1.0: must be > 0 and <= 10"),
        ("batch_size=0", "batch_size=0: must be >= 1"),
        ("dataset.max_length=2", "dataset.max_length=2: must be >= 8"),
        ("dataset.max_length=100000", "dataset.max_length=100000: this model has 512 positions; must be <= 512"),
        ("model=bert-bas", "did you mean 'bert-base-chinese'?"),
        ("experiment=quickstrt", "did you mean 'quickstart'?"),
        ("model.pooling=men", "must be one of cls, mean, max, first_last_mean, pooler"),
        ("trainer.monitor=dev/f2", "did you mean 'dev/f1'?"),
        ("trainer.device=cuda", "trainer.device=cuda: not on this machine"),
        ("trainer.mixed_precision=fp16", "legal on this machine: auto, no, bf16"),
        ("trainer.gradient_accumulation_steps=9", "must be <= batch_size=4"),
        ("objective.class_weights=[1,2,3]", "a list of 2 positive, finite numbers"),
        ("objective.class_weights=[1,inf]", "a list of positive, finite numbers"),
        ("optimizer.weight_decay=abc", "optimizer.weight_decay=abc: torch.optim.AdamW refuses this"),
        ("scheduler.warmup_steps=30", "scheduler.warmup_steps=30: this run has 30 steps; must be fewer"),
        ("optimizer.weight_decay=-3", "torch.optim.AdamW refuses this: Invalid weight_decay value: -3"),
        ("+optimizer.foo=1", "optimizer.foo: AdamW has no such argument"),
        ("+optimizer.lr=1", "the learning rate is a key of its own: lr=1"),
        ("optimizer._target_=torch.optim.Adamm", "did you mean 'Adam'?"),
        ("optimizer._target_=no_such_module.Adam", "is it installed here?"),
        ("scheduler.warmup_ratio=2", "scheduler.warmup_ratio=2: must be >= 0 and < 1"),
        ("+scheduler.foo=1", "scheduler.foo"),
        ("model.name_or_path=./nowhere", "model.name_or_path=./nowhere: no such directory"),
        ("model.architecture.hidden_size=100", "must be a multiple of num_attention_heads=12"),
        ("+model.architecture.hiden_size=100", "model.architecture.hiden_size"),
        ("dataset.train_file=null", "dataset.train_file: is not set"),
        ("dataset.train_file=trian.jsonl", "no such file; did you mean 'train.jsonl'?"),
        ("dataset.train_file=.", "is a directory; a file was expected"),
        ("dataset.path=nowhere", "dataset.path=nowhere: no such directory or zip"),
        ("dataset.sentence1_field=question1", "train.jsonl:1: no 'question1'"),
        ("dataset.labels=[no,yes]", "train.jsonl:1: label "),
        ("lr=[1", "lr=[1: cannot be read"),
        (
            f"hydra.run.dir={'x' * 300}",
            "cannot be created (File name too long); a writable directory is needed",
        ),
    ],
)
def test_it_is_told_by_its_name(override, told, refused):
    assert told in refused(override)


@pytest.mark.parametrize(
    ("content", "told"),
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
def test_a_bad_file_is_told_with_its_line(content, told, refused, tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(content)
    assert told in refused("dataset.dev_file=bad.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_told(refused, tmp_path):
    (tmp_path / "dev.jsonl").chmod(0)
    assert "cannot be read" in refused()


def test_a_wrong_value_leaves_no_directory_behind(refused, tmp_path):
    refused("lr=-1")
    assert not (tmp_path / "outputs").exists()


def test_a_hub_that_cannot_be_reached_names_the_ways_round_it(tmp_path):
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    told = command("run", "dataset=sample", "tracker=none", cwd=tmp_path, env=away)
    assert told.returncode == 2
    for way in ("http://127.0.0.1:9 (no answer: ", "HF_ENDPOINT=", "model.name_or_path=DIR", "experiment=quickstart"):
        assert way in told.stderr
    assert "Traceback" not in told.stderr


def test_a_download_that_cannot_be_had_names_the_ways_round_it(tmp_path):
    away = {"AFQMC_CACHE": str(tmp_path / "cache")}
    told = command("run", "model=mini", "tracker=none", "dataset.url=http://127.0.0.1:9/a.zip", cwd=tmp_path, env=away)
    assert told.returncode == 2
    for way in ("dataset.path=DIR_OR_ZIP", "dataset.url=", "experiment=quickstart"):
        assert way in told.stderr


def test_full_errors_are_shown_when_asked(tmp_path):
    told = command("run", "lr=-1", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert told.returncode != 0
    assert "Traceback" in told.stderr


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_directory_that_is_no_run_is_told(name, tmp_path):
    more = ("x.jsonl", "-o", "out.jsonl") if name == "predict" else ()
    told = command(name, str(tmp_path), *more, cwd=tmp_path)
    assert (told.returncode, told.stderr.strip()) == (2, f"{tmp_path}: not a run directory (it has no config.yaml)")


def test_what_data_and_config_disagree_on_is_told_before_a_model_is_built(refused, monkeypatch):
    monkeypatch.setattr("afqmc.runner.setup.build_tokenizer", None)
    assert "a list of 2 positive" in refused("objective.class_weights=[1,2,3]")
    assert "this run has 7 steps" in refused("scheduler.warmup_steps=7", "trainer.max_steps=7")


def test_a_model_directory_that_is_not_there_is_told_before_data_are_read(refused, monkeypatch):
    monkeypatch.setattr("afqmc.runner.setup.load_dataset", None)
    assert "no such directory" in refused("model.name_or_path=./nowhere")


def test_a_refused_run_leaves_its_directory_free_for_the_corrected_command(refused, tmp_path, monkeypatch):
    where = ("hydra.run.dir=here", "trainer.max_steps=1", "dataset.max_dev_samples=8")
    refused(*where, "dataset.sentence1_field=question")
    assert json.loads((tmp_path / "here/status.json").read_text())["status"] == "refused"
    sys.argv = [argument for argument in sys.argv if "question" not in argument]
    assert run_command(entry.main) == 0
    assert (tmp_path / "here/summary.json").exists()
    assert "here: already holds a run" in refused(*where)
