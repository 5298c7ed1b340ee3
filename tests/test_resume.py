"""A run that is ended at any step and gone on with is the run that was never ended, bit for bit."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from equality import differences, metrics
from helpers import PATIENCE_S, SMALL, command, small, summary

from afqmc.config import compose
from afqmc.config.resume import Resume, merge_for_resume
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.trainer import Trainer
from afqmc.utils.errors import InputError
from afqmc.utils.signals import Terminated

ROOT = str(Path(__file__).parents[1])

# A schedule of one's own that sends the process a signal at some steps, once each.
SCHEDULE = """
import os, signal
at = {}
def linear(step, total_steps):
    if (number := at.pop(step, None)) is not None:
        os.kill(os.getpid(), number)
    return 1 - step / total_steps
"""
WAYS = {
    "plain": (),
    "quick dropout, bf16, parts": ("trainer.mixed_precision=bf16", "trainer.gradient_accumulation_steps=3"),
    "stream": ("dataset.streaming=true", "dataset.shuffle_buffer=20"),
    "stops early": ("trainer.eval_steps=4", "trainer.patience=2", "trainer.min_delta=0.5", "epochs=9"),
    "random, clipped, rows seldom": ("dataset.batching=random", "trainer.max_grad_norm=0.1", "trainer.logging_steps=5"),
    "packed, PyTorch's dropout": ("performance.padding_free=true", "performance.fast_cpu_dropout=false"),
    "by tokens, adafactor": ("dataset.batching=tokens", "dataset.batch_tokens=256", "optimizer=adafactor"),
    "a fold": ("dataset.folds=3", "dataset.fold=1", "dataset.max_train_samples=144"),
    "saves often": ("checkpoint.save_steps=1", "checkpoint.keep_weights=1"),
}
QUICK = ("quick dropout, bf16, parts",)


@pytest.fixture(scope="module")
def schedule(tmp_path_factory):
    place = tmp_path_factory.mktemp("modules")
    (place / "signalling.py").write_text(SCHEDULE)
    sys.path.insert(0, str(place))
    yield importlib.import_module("signalling")
    sys.path.remove(str(place))


def own(schedule, *overrides):
    return small(f"scheduler._target_={schedule.__name__}.linear", *overrides)


def ended_often(schedule, run_dir, config, steps):
    """Run it, terminated at each of these steps and gone on with; how often it was."""
    ended = 0
    schedule.at = dict.fromkeys(steps, signal.SIGTERM)
    for _ in range(len(steps) + 1):
        try:
            run_experiment(config, run_dir, resume=True)
            return ended
        except Terminated:
            ended += 1
            assert run_dir.read_status()["status"] == "interrupted"
            assert not run_dir.summary.exists()
    raise AssertionError("never done")


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in QUICK else pytest.mark.slow) for way in WAYS])
def test_a_run_that_is_terminated_and_gone_on_with_is_the_run_that_never_was(schedule, tmp_path, way):
    config = own(schedule, *WAYS[way])
    whole, ended = RunDir(tmp_path / "whole"), RunDir(tmp_path / "ended")
    run_experiment(config, whole)
    steps = [2, 7, 8, 12] if way == "stops early" else [3, 12, 17]  # 8 and 12 end in an evaluation that is then due
    assert ended_often(schedule, ended, config, steps) >= 3
    assert differences(whole, ended) == []


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("done") / "run")
    run_experiment(small("checkpoint.save_steps=5"), run_dir)
    return run_dir


@pytest.fixture
def run(done, tmp_path):
    """A complete run of one's own."""
    shutil.copytree(done.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def test_a_complete_run_is_left_as_it_is(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock" and path.is_file()}
    assert run_experiment(Resume(run.path, []).config(), run, resume=True) == summary(run)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_complete_run_can_be_made_longer_and_says_so(run, caplog):
    caplog.set_level("INFO")
    rows_before = metrics(run)
    run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)
    assert summary(run)["steps"] == 36
    assert "LONGER" in caplog.text
    assert metrics(run)[: len(rows_before)] == rows_before
    assert json.loads((run.path / "environment.json").read_text())["resumed"]
    lrs = [row["train/lr"] for row in metrics(run) if "train/lr" in row]
    assert lrs[24] == pytest.approx(5e-4 * 12 / 36)  # as the longer schedule has it


@pytest.mark.parametrize(
    ("override", "told"),
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
def test_what_would_make_it_another_run_is_refused_by_name(run, override, told):
    with pytest.raises(InputError) as refusal:
        Resume(run.path, [override]).config()
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "override", ["lr=5e-4", "tracker=wandb", "tracker.project=p", "checkpoint.save_steps=2", "epochs=4", "batch_size=8"]
)
def test_what_cannot_change_the_result_may_be_given(run, override):
    Resume(run.path, [override]).config()


def test_the_command_line_may_name_another_tracker(run, tmp_path):
    ended = command("run", f"resume={run.path}", "tracker=none", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_auto_holds_the_whole_command_to_the_run_that_is_there(run):
    saved = Resume(run.path, []).config()
    with pytest.raises(InputError, match="lr=0.1: the run has lr=0.0005"):
        merge_for_resume(saved, small("checkpoint.save_steps=5", "lr=0.1", "resume=auto"))
    merge_for_resume(saved, small("checkpoint.save_steps=7", "resume=auto"))


def test_other_data_are_not_gone_on_with_and_the_run_stays_complete(run):
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
    place = tmp_path_factory.mktemp("half")
    config, whole, run_dir = own(schedule), RunDir(place / "whole"), RunDir(place / "half")
    run_experiment(config, whole)
    schedule.at = {17: signal.SIGTERM}
    with pytest.raises(Terminated):
        run_experiment(config, run_dir)
    return config, whole, run_dir


@pytest.fixture
def half(halved, tmp_path):
    """A run that was terminated at step 17, with a checkpoint of step 12 before that, and what it would have become."""
    config, whole, run_dir = halved
    subprocess.run(["cp", "-a", str(run_dir.path), str(tmp_path / "half")], check=True)  # hard links stay such
    return config, whole, RunDir(tmp_path / "half")


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "checksums.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(half, caplog, name):
    caplog.set_level("INFO")
    config, whole, run_dir = half
    flip(run_dir.path / "checkpoints/last" / name)
    run_experiment(config, run_dir, resume=True)
    assert "checkpoints/last" in caplog.text
    assert "damaged" in caplog.text
    assert "resumed at step 12 of 24" in caplog.text
    assert differences(whole, run_dir) == []


def test_a_save_that_was_cut_off_is_passed_over(half):
    config, whole, run_dir = half
    aside = run_dir.path / "checkpoints/.last.new"
    aside.mkdir()
    (aside / "state.safetensors").write_bytes(b"half")
    run_experiment(config, run_dir, resume=True)
    assert differences(whole, run_dir) == []
    assert not aside.exists()


def test_a_save_that_only_lacked_its_name_counts(half, caplog):
    caplog.set_level("INFO")
    config, whole, run_dir = half
    checkpoints = run_dir.path / "checkpoints"
    (checkpoints / "last").rename(checkpoints / ".last.new")
    run_experiment(config, run_dir, resume=True)
    assert "resumed at step 17" in caplog.text
    assert differences(whole, run_dir) == []


@pytest.mark.parametrize("names", [("last/state.json", "previous/state.json"), ("best/model.safetensors",)])
def test_without_a_sound_checkpoint_nothing_is_thrown_away(half, names):
    config, _, run_dir = half  # whose best weights are of step 12: all have them in common
    for name in names:
        flip(run_dir.path / "checkpoints" / name)
    with pytest.raises(InputError, match="no intact checkpoint"):
        run_experiment(config, run_dir, resume=True)
    assert run_dir.best.exists()
    assert len(metrics(run_dir)) == 18


def test_a_torn_row_past_the_checkpoint_is_cut(half):
    config, whole, run_dir = half
    with run_dir.metrics.open("a") as file:
        file.write('{"step": 18, "train/loss": 1.0}\n{"step": 19, "tra')
    run_experiment(config, run_dir, resume=True)
    assert differences(whole, run_dir) == []


def test_on_the_command_line_a_run_goes_on_in_its_own_directory(schedule, half, tmp_path):
    _, whole, run_dir = half
    place = tmp_path / "我的 run, [1]=x"
    run_dir.path.rename(place)
    env = {"PYTHONPATH": os.pathsep.join((os.path.dirname(schedule.__file__), ROOT))}
    refused = command("run", f"resume={place}", cwd=tmp_path, env=env)
    assert refused.returncode == 2, refused.stderr
    assert "untrusted code; trust=true runs it" in refused.stderr
    found = command("run", f"resume={place}", "trust=true", cwd=tmp_path, env=env)
    assert found.returncode == 0, found.stderr
    assert "resumed at step 17 of 24" in found.stdout
    assert differences(whole, RunDir(place)) == []
    log = (place / "run.log").read_text(encoding="utf-8")
    assert "resumed at step 17" in log


def test_auto_starts_and_goes_on_and_leaves_what_is_complete(tmp_path):
    arguments = (*SMALL, "resume=auto", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_steps=4")
    first, second = (command("run", *arguments, cwd=tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "complete already" in second.stdout
    assert "resume: null" in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("resume=auto",), "needs a fixed directory: hydra.run.dir=DIR"),
        (("-m", "resume=auto"), "sweep.name=NAME"),
        (("resume=nowhere",), "nowhere: not a run directory"),
        (("-m", "resume=somewhere"), "resumes one run"),
        (("resume=somewhere", "hydra.run.dir=x"), "hydra.run.dir=x: not with resume=RUN_DIR"),
        (("resume=somewhere", "--cfg", "job"), "--cfg: not with resume="),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(tmp_path, arguments, told):
    found = command("run", *arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert told in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_second_process_is_refused_while_one_is_at_the_run(run):
    with run.locked(), pytest.raises(InputError, match=f"another process is at this run .process {os.getpid()} on"):
        run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)


def test_an_interrupted_evaluation_is_done_first_when_the_run_goes_on(schedule, tmp_path, monkeypatch):
    config, whole, run_dir = own(schedule), RunDir(tmp_path / "whole"), RunDir(tmp_path / "run")
    run_experiment(config, whole)
    score = Trainer._evaluate

    def interrupted(self, model):
        os.kill(os.getpid(), signal.SIGINT)  # put off until the evaluation admits it
        return score(self, model)

    monkeypatch.setattr(Trainer, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, run_dir)
    monkeypatch.undo()
    assert len(metrics(run_dir)) == 12
    run_experiment(config, run_dir, resume=True)
    assert differences(whole, run_dir) == []


def test_the_config_that_is_saved_says_nothing_of_resuming(tmp_path):
    assert compose(["resume=auto"]).resume == "auto"
    assert merge_for_resume(compose([]), compose(["resume=auto"])).resume is None


def test_a_killed_run_goes_on_its_lock_dead_with_it(tmp_path):
    dropout = ("model.architecture.hidden_dropout_prob=0.1", "model.architecture.attention_probs_dropout_prob=0.1")
    arguments = (*SMALL, *dropout, "epochs=16", "checkpoint.save_steps=5", "dataset.max_test_samples=16")
    whole, killed = RunDir(tmp_path / "whole"), RunDir(tmp_path / "killed")
    run_experiment(small("epochs=16", "checkpoint.save_steps=5"), whole)
    process = subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *arguments, f"hydra.run.dir={killed.path}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (killed.checkpoints / "last").exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert killed.read_status()["status"] == "running"
    assert not killed.summary.exists()
    run_experiment(small("epochs=16", "checkpoint.save_steps=5"), killed, resume=True)
    assert differences(whole, killed) == []


def test_a_complete_run_without_a_checkpoint_is_not_begun_anew(run):
    shutil.rmtree(run.path / "checkpoints/last")
    before = metrics(run)
    with pytest.raises(InputError, match="complete, and has no checkpoint"):
        run_experiment(Resume(run.path, ["epochs=3"]).config(), run, resume=True)
    assert run.summary.exists()
    assert metrics(run) == before


@pytest.mark.slow
def test_hydras_record_of_how_a_run_began_stays_when_auto_refuses_or_goes_on(tmp_path):
    arguments = (*SMALL, "resume=auto", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_steps=2")
    assert command("run", *arguments, cwd=tmp_path).returncode == 0
    overrides = tmp_path / "run/.hydra/overrides.yaml"
    before = overrides.read_text()
    refused = command("run", *arguments, "lr=7e-4", cwd=tmp_path)
    assert refused.returncode == 2
    assert "lr=0.0007: the run has lr=0.0005" in refused.stderr
    assert overrides.read_text() == before
