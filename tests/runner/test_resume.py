"""Resuming: a run that is interrupted at any step and resumed equals one that was not, bit for bit."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from equality import differences, metrics
from helpers import SMALL, command, small, summary

from afqmc.config import compose
from afqmc.config.resume import Resume, merge_for_resume
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.trainer import Trainer
from afqmc.utils.errors import InputError
from afqmc.utils.signals import Terminated

ROOT = str(Path(__file__).parents[2])

# A custom schedule that sends a signal to the process at some steps, once each.
SCHEDULE = """
import os, signal
at = {}
def linear(step, total_steps):
    if (signum := at.pop(step, None)) is not None:
        os.kill(os.getpid(), signum)
    return 1 - step / total_steps
"""
VARIANTS = {
    "plain": (),
    "fast dropout, bf16, microbatches": ("trainer.mixed_precision=bf16", "trainer.gradient_accumulation_steps=3"),
    "stream": ("dataset.streaming=true", "dataset.shuffle_buffer_size=20"),
    "stops early": ("trainer.eval_steps=4", "trainer.patience=2", "trainer.min_delta=0.5", "epochs=9"),
    "random, clipped, few rows": ("dataset.batching=random", "trainer.max_grad_norm=0.1", "trainer.logging_steps=5"),
    "padding-free, PyTorch's dropout": ("performance.padding_free=true", "performance.fast_cpu_dropout=false"),
    "by tokens, adafactor": (
        "dataset.batching=token_budget",
        "dataset.max_tokens_per_batch=256",
        "optimizer=adafactor",
    ),
    "a fold": ("dataset.num_folds=3", "dataset.fold=1", "dataset.max_train_samples=144"),
    "both orders, added pairs": ("dataset.swap=both", "dataset.transitive=true"),
    "native head": ("model.head=native",),
    "saves often": ("checkpoint.save_steps=1", "checkpoint.keep_weights=1"),
}
# methods with state of their own; with a row every 4 steps, the checkpoint of step 15 has part of a row's values
METHODS = {
    "plain": (),
    "ema, soup, fgm": ("callbacks=[ema,soup,fgm]", "trainer.eval_steps=7"),
    "soup": ("callbacks=[soup]", "trainer.eval_steps=7"),
    "pgd": ("callbacks=[pgd]",),
    "awp": ("callbacks=[awp]",),
    "r_drop, multi_sample": ("objective=r_drop", "model.dropout.multi_sample=2"),
    "supervised_contrastive, mixout": ("objective=supervised_contrastive", "model.mixout=0.5"),
    "focal": ("objective=focal",),
    "poly1": ("objective=poly1",),
}
SLOW_METHODS = ("soup", "pgd", "awp", "focal", "poly1")
QUICK = ("fast dropout, bf16, microbatches",)


@pytest.fixture(scope="module")
def schedule(tmp_path_factory):
    directory = tmp_path_factory.mktemp("modules")
    (directory / "signalling.py").write_text(SCHEDULE)
    sys.path.insert(0, str(directory))
    yield importlib.import_module("signalling")
    sys.path.remove(str(directory))


def with_schedule(schedule, *overrides):
    return small(f"scheduler._target_={schedule.__name__}.linear", *overrides)


def run_interrupted(schedule, run_dir, config, steps):
    """Run to the end, terminated at each of these steps and resumed; return the number of interruptions."""
    interruptions = 0
    schedule.at = dict.fromkeys(steps, signal.SIGTERM)
    for _ in range(len(steps) + 1):
        try:
            run_experiment(config, run_dir, resume=True)
            return interruptions
        except Terminated:
            interruptions += 1
            assert run_dir.read_status()["status"] == "interrupted"
            assert not run_dir.summary.exists()
    raise AssertionError("the run did not complete")


@pytest.mark.parametrize(
    "variant", [pytest.param(variant, marks=() if variant in QUICK else pytest.mark.slow) for variant in VARIANTS]
)
def test_interrupted_run_is_bit_exact(schedule, tmp_path, variant):
    """A run that is terminated several times and resumed equals the run that never was, bit for bit."""
    config = with_schedule(schedule, *VARIANTS[variant])
    uninterrupted, interrupted = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "interrupted")
    run_experiment(config, uninterrupted)
    steps = [2, 7, 8, 12] if variant == "stops early" else [3, 12, 17]  # an evaluation is due after 8 and 12
    assert run_interrupted(schedule, interrupted, config, steps) >= 3
    assert differences(uninterrupted, interrupted) == []


@pytest.fixture
def run(small_run, tmp_path):
    """A copy of a complete run."""
    shutil.copytree(small_run.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def test_complete_run_is_unchanged(run, capsys):
    """Resuming a complete run changes no file."""
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock" and path.is_file()}
    assert run_experiment(Resume(run.path, []).config(), run, resume=True) == summary(run)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_complete_run_can_be_extended(run, caplog):
    """A complete run can be resumed with more epochs, and logs that."""
    caplog.set_level("INFO")
    rows_before = metrics(run)
    run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)
    assert summary(run)["steps"] == 36
    assert "longer than planned" in caplog.text
    assert metrics(run)[: len(rows_before)] == rows_before
    assert json.loads((run.path / "environment.json").read_text())["resumed"]
    lrs = [row["train/lr"] for row in metrics(run) if "train/lr" in row]
    assert lrs[24] == pytest.approx(5e-4 * 12 / 36)  # of the longer schedule


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=1e-3", "lr=0.001: the run has lr=0.0005, which cannot be changed"),
        ("epochs=1", "epochs=1: the run has epochs=2, which may only be raised"),
        ("seed=7", "seed=7"),
        ("optimizer.weight_decay=0.5", "optimizer.weight_decay=0.5"),
        ("trainer.mixed_precision=bf16", "trainer.mixed_precision=bf16"),
        ("model=mini", "model=mini: resume= keeps the model of the run"),
        ("lr=1e-3,1e-4", "not with resume="),
        ("+lr=1", "not with resume="),
        ("learning_rate=1", "learning_rate"),
        ("dataset.max_length=64", "dataset.max_length=64"),
    ],
)
def test_changed_results_are_refused(run, override, message):
    """Overrides that would change the result are refused by name."""
    with pytest.raises(InputError) as refusal:
        Resume(run.path, [override]).config()
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "override", ["lr=5e-4", "tracker=wandb", "tracker.project=p", "checkpoint.save_steps=2", "epochs=4", "batch_size=8"]
)
def test_harmless_overrides_are_allowed(run, override):
    """Overrides that cannot change the result are allowed."""
    Resume(run.path, [override]).config()


def test_tracker_can_be_changed(run, tmp_path):
    resumed = command("run", f"resume={run.path}", "tracker=none", cwd=tmp_path)
    assert (resumed.returncode, resumed.stderr) == (0, "")


def test_auto_checks_the_whole_command(run):
    """``resume=auto`` checks every override against the existing run."""
    saved = Resume(run.path, []).config()
    with pytest.raises(InputError, match="lr=0.1: the run has lr=0.0005"):
        merge_for_resume(saved, small("checkpoint.save_steps=5", "lr=0.1", "resume=auto"))
    merge_for_resume(saved, small("checkpoint.save_steps=7", "resume=auto"))


def test_other_data_are_refused(run):
    """A run is not resumed with other data; it stays complete."""
    text = (run.path / "config.yaml").read_text().replace("max_train_samples: 96", "max_train_samples: 95")
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="data or tokenizer are not those"):
        run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)
    assert run.summary.exists()
    assert run.read_status()["status"] == "completed"
    assert "epochs: 2" in (run.path / "config.yaml").read_text()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def halved(schedule, tmp_path_factory):
    directory = tmp_path_factory.mktemp("half")
    config = with_schedule(schedule)
    uninterrupted, run_dir = RunDir(directory / "uninterrupted"), RunDir(directory / "half")
    run_experiment(config, uninterrupted)
    schedule.at = {17: signal.SIGTERM}
    with pytest.raises(Terminated):
        run_experiment(config, run_dir)
    return config, uninterrupted, run_dir


@pytest.fixture
def half(halved, tmp_path):
    """A config, its complete run, and its run terminated at step 17, whose previous checkpoint is of step 12."""
    config, uninterrupted, run_dir = halved
    subprocess.run(["cp", "-a", str(run_dir.path), str(tmp_path / "half")], check=True)  # keeps hard links
    return config, uninterrupted, RunDir(tmp_path / "half")


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "checksums.json"])
def test_damaged_checkpoint_falls_back(half, caplog, name):
    """A damaged checkpoint is named, and the previous one is used."""
    caplog.set_level("INFO")
    config, uninterrupted, run_dir = half
    flip(run_dir.path / "checkpoints/last" / name)
    run_experiment(config, run_dir, resume=True)
    assert "checkpoints/last" in caplog.text
    assert "damaged" in caplog.text
    assert "resumed at step 12 of 24" in caplog.text
    assert differences(uninterrupted, run_dir) == []


def test_incomplete_save_is_ignored(half):
    config, uninterrupted, run_dir = half
    partial = run_dir.path / "checkpoints/.last.new"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    run_experiment(config, run_dir, resume=True)
    assert differences(uninterrupted, run_dir) == []
    assert not partial.exists()


def test_complete_save_without_rename_is_used(half, caplog):
    """A checkpoint that was complete, but not renamed yet, is used."""
    caplog.set_level("INFO")
    config, uninterrupted, run_dir = half
    checkpoints = run_dir.path / "checkpoints"
    (checkpoints / "last").rename(checkpoints / ".last.new")
    run_experiment(config, run_dir, resume=True)
    assert "resumed at step 17" in caplog.text
    assert differences(uninterrupted, run_dir) == []


@pytest.mark.parametrize("names", [("last/state.json", "previous/state.json"), ("best/model.safetensors",)])
def test_damaged_checkpoints_delete_nothing(half, names):
    """If all checkpoints are damaged, the run is refused and nothing is deleted."""
    config, _, run_dir = half  # the best weights, of step 12, are part of all checkpoints
    for name in names:
        flip(run_dir.path / "checkpoints" / name)
    with pytest.raises(InputError, match="no intact checkpoint"):
        run_experiment(config, run_dir, resume=True)
    assert run_dir.best.exists()
    assert len(metrics(run_dir)) == 18


def test_rows_after_checkpoint_are_deleted(half):
    """Rows of metrics after the checkpoint, an incomplete one included, are deleted."""
    config, uninterrupted, run_dir = half
    with run_dir.metrics.open("a") as file:
        file.write('{"step": 18, "train/loss": 1.0}\n{"step": 19, "tra')
    run_experiment(config, run_dir, resume=True)
    assert differences(uninterrupted, run_dir) == []


def test_resume_on_command_line(schedule, half, tmp_path):
    """On the command line, a run is resumed in its own directory, and custom code needs ``trust=true``."""
    _, uninterrupted, run_dir = half
    path = tmp_path / "我的 run, [1]=x"
    run_dir.path.rename(path)
    shutil.copy(schedule.__file__, tmp_path)
    refused = command("run", f"resume={path}", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "untrusted code; trust=true runs it" in refused.stderr
    resumed = command("run", f"resume={path}", "trust=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step 17 of 24" in resumed.stdout
    assert differences(uninterrupted, RunDir(path)) == []
    log = (path / "run.log").read_text(encoding="utf-8")
    assert "resumed at step 17" in log


def test_auto_on_command_line(tmp_path):
    """``resume=auto`` starts a run, and leaves a complete one unchanged."""
    arguments = (*SMALL, "resume=auto", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_steps=4")
    started, again = (command("run", *arguments, cwd=tmp_path) for _ in range(2))
    assert (started.returncode, again.returncode) == (0, 0), started.stderr + again.stderr
    assert "complete already" in again.stdout
    assert "resume: null" in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resume=auto",), "needs a fixed directory: hydra.run.dir=DIR"),
        (("-m", "resume=auto"), "sweep.name=NAME"),
        (("resume=nowhere",), "nowhere: no such directory"),
        (("-m", "resume=somewhere"), "resumes one run"),
        (("resume=somewhere", "hydra.run.dir=x"), "hydra.run.dir=x: not with resume=RUN_DIR"),
        (("resume=somewhere", "--cfg", "job"), "--cfg: not with resume="),
    ],
)
def test_invalid_resume_is_refused(tmp_path, arguments, message):
    refused = command("run", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_run_in_use_is_refused(run):
    with run.locked(), pytest.raises(InputError, match=f"another process is using this run .process {os.getpid()} on"):
        run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)


def test_interrupted_evaluation_is_repeated(schedule, tmp_path, monkeypatch):
    """An interrupted evaluation is repeated first when the run is resumed."""
    config = with_schedule(schedule)
    uninterrupted, run_dir = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "run")
    run_experiment(config, uninterrupted)
    evaluate = Trainer._evaluate

    def interrupted(self, model):
        os.kill(os.getpid(), signal.SIGINT)  # deferred until the evaluation allows signals
        return evaluate(self, model)

    monkeypatch.setattr(Trainer, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, run_dir)
    monkeypatch.undo()
    assert len(metrics(run_dir)) == 12
    run_experiment(config, run_dir, resume=True)
    assert differences(uninterrupted, run_dir) == []


def test_saved_config_does_not_resume(tmp_path):
    assert compose(["resume=auto"]).resume == "auto"
    assert merge_for_resume(compose([]), compose(["resume=auto"])).resume is None


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_METHODS else ()) for name in METHODS]
)
def test_killed_run_is_resumed(schedule, tmp_path, method):
    """A run that was killed in the middle of an epoch, and its lock with it, is resumed bit for bit."""
    options = ("checkpoint.save_steps=5", "trainer.logging_steps=4", *METHODS[method])
    config = with_schedule(schedule, *options)
    uninterrupted, killed = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "killed")
    run_experiment(config, uninterrupted)
    source = SCHEDULE.replace("at = {}", "at = {17: signal.SIGKILL}")
    (tmp_path / f"{schedule.__name__}.py").write_text(source, encoding="utf-8")
    dropout = [f"model.config_overrides.{name}=0.1" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
    target = f"scheduler._target_={schedule.__name__}.linear"
    done = command("run", *SMALL, *dropout, *options, target, f"hydra.run.dir={killed.path}", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert killed.read_status()["status"] == "running"
    assert len(metrics(killed)) < len(metrics(uninterrupted))
    run_experiment(config, killed, resume=True)
    assert differences(uninterrupted, killed) == []


MODEL_METHODS = {
    "layer rates, frozen, re-initialised": (
        "optimizer.layer_decay=0.8", "optimizer.head_lr=2e-3", "model.freeze=[embeddings]", "model.reinit_layers=1",
    ),
    "muon": ("optimizer=muon", "trainer.gradient_accumulation_steps=2"),
    "stable_adamw": ("optimizer=stable_adamw",),
    "schedule_free": ("optimizer=schedule_free", "scheduler=constant", "trainer.eval_steps=4"),
    "lora": ("model.lora.r=2", "model.lora.dropout=0.1", "lr=1e-2"),
}  # fmt: skip
PACKAGES = {"lora": "peft", "stable_adamw": "pytorch_optimizer", "schedule_free": "pytorch_optimizer"}
KILLER = """
import os, signal
from afqmc.training.callbacks.base import Callback
class Kill(Callback):
    def on_step_end(self, trainer, event):
        if event.step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("method", MODEL_METHODS)
def test_killed_method_is_resumed(tmp_path, method):
    """A run with a method that is killed in the middle of an epoch is resumed bit for bit."""
    if method in PACKAGES:
        pytest.importorskip(PACKAGES[method], reason="needs an extra")
    overrides = ("epochs=1", "checkpoint.save_steps=3", *MODEL_METHODS[method])
    uninterrupted, killed = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "killed")
    run_experiment(small(*overrides), uninterrupted)
    (tmp_path / "killer.py").write_text(KILLER, encoding="utf-8")
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout = [f"model.config_overrides.{name}=0.1" for name in names]
    kill = ("+callbacks.kill._target_=killer.Kill", f"hydra.run.dir={killed.path}")
    done = command("run", *SMALL, *dropout, *overrides, *kill, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 0 < len(metrics(killed)) < len(metrics(uninterrupted))
    run_experiment(small(*overrides), killed, resume=True)
    assert differences(uninterrupted, killed) == []


def test_complete_run_without_checkpoint(run):
    """A complete run without a checkpoint is refused, not started again."""
    shutil.rmtree(run.path / "checkpoints/last")
    before = metrics(run)
    with pytest.raises(InputError, match="complete, and has no checkpoint"):
        run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)
    assert run.summary.exists()
    assert metrics(run) == before


@pytest.mark.slow
def test_auto_keeps_hydra_overrides(tmp_path):
    """``.hydra/overrides.yaml`` stays as it was when ``resume=auto`` refuses the run."""
    arguments = (*SMALL, "resume=auto", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_steps=2")
    assert command("run", *arguments, cwd=tmp_path).returncode == 0
    overrides = tmp_path / "run/.hydra/overrides.yaml"
    before = overrides.read_text()
    refused = command("run", *arguments, "lr=7e-4", cwd=tmp_path)
    assert refused.returncode == 2
    assert "lr=0.0007: the run has lr=0.0005" in refused.stderr
    assert overrides.read_text() == before
