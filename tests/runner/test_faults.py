"""Faults during a run, provoked for real: full disks, deleted directories, non-finite losses, out of memory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from equality import differences, metrics
from helpers import PATIENCE_S, PYTHON, SMALL, command, environment, small, summary

from afqmc.checkpoint.store import verify_checksums
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.training.callbacks.base import Callback
from afqmc.training.step import NonFiniteLossError
from afqmc.utils.errors import InputError

ROOT = str(Path(__file__).parents[2])

# A custom model with NaN logits at the training calls in ``bad``, at most ``times`` times.
MODEL = """
import torch
calls, bad, times = 0, None, 0
class Bag(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(vocab_size, 8, padding_idx=pad_token_id)
        self.out = torch.nn.Linear(8, num_labels)
    def forward(self, input_ids, **_):
        global calls, times
        logits = self.out(self.bag(input_ids))
        if self.training:
            calls += 1
            if times > 0 and calls in bad:
                times -= 1
                return logits * float("nan")
        return logits
"""


@pytest.fixture
def model(plug):
    import importlib

    return importlib.import_module(plug(MODEL))


def bag(model, *overrides):
    return small(f"model._target_={model.__name__}.Bag", "checkpoint.save_steps=5", *overrides)


def nonfinite(run_dir):
    return [row for row in metrics(run_dir) if "nonfinite/ids" in row]


def test_nonfinite_loss_stops_run(model, tmp_path):
    """A loss that is NaN stops the run, and metrics.jsonl names the batch."""
    model.bad, model.times = {7}, 1
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 7 .lr "):
        run_experiment(bag(model), run_dir)
    (row,) = nonfinite(run_dir)
    assert (row["step"], row["nonfinite/loss"], len(row["nonfinite/ids"])) == (7, "nan", 8)
    assert run_dir.read_status()["status"] == "failed"
    assert not run_dir.summary.exists()


def test_nonfinite_batches_are_skipped(model, tmp_path):
    """``on_nonfinite=skip`` skips such batches, at most ``max_nonfinite`` times."""
    model.bad, model.times = {7, 9}, 2
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(model, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=2"), run_dir)
    assert [row["step"] for row in nonfinite(run_dir)] == [7, 9]
    assert [row["step"] for row in metrics(run_dir) if "train/loss" in row] == [*range(1, 7), 8, *range(10, 25)]
    model.calls, model.bad, model.times = 0, {7, 9}, 2
    with pytest.raises(NonFiniteLossError, match="step 9"):
        run_experiment(bag(model, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=1"), RunDir(tmp_path / "other"))


def test_rollback(model, tmp_path, caplog):
    """``on_nonfinite=rollback`` returns to the last checkpoint with a lower learning rate."""
    model.bad, model.times = {7}, 1
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(model, "trainer.on_nonfinite=rollback", "scheduler=constant"), run_dir)
    assert "back to step 5, learning rate times 0.5 (1 of at most 10 rollbacks)" in caplog.text
    lrs = [(row["step"], row["train/lr"]) for row in metrics(run_dir) if "train/lr" in row]
    assert lrs == [(step, 5e-4 if step <= 5 else 2.5e-4) for step in range(1, 25)]
    assert [row["step"] for row in nonfinite(run_dir)] == [7]


def test_rollback_limit(model, tmp_path):
    """Rollbacks end after ``max_nonfinite`` times."""
    model.bad, model.times = set(range(7, 100)), 100
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError):
        run_experiment(bag(model, "trainer.on_nonfinite=rollback", "trainer.max_nonfinite=3"), run_dir)
    assert len(nonfinite(run_dir)) >= 1


def test_rollback_without_checkpoint_keeps_metrics(model, tmp_path):
    """A rollback before the first checkpoint fails the run, and its rows of metrics are kept."""
    model.bad, model.times = {3}, 1
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match="step 3"):
        run_experiment(bag(model, "trainer.on_nonfinite=rollback"), run_dir)
    assert [row["step"] for row in metrics(run_dir) if "train/loss" in row] == [1, 2]


BLIND = """
import torch
steps, blind = 0, {}  # training step -> (rows, value): the first rows of each dev batch have logits of this value
class Bag(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(vocab_size, 8, padding_idx=pad_token_id)
        self.out = torch.nn.Linear(8, num_labels)
    def forward(self, input_ids, **_):
        global steps
        logits = self.out(self.bag(input_ids))
        steps += self.training
        if not self.training and steps in blind:
            rows, value = blind[steps]
            logits[:rows] = value
        return logits
"""


@pytest.fixture
def blind(plug):
    import importlib

    return importlib.import_module(plug(BLIND))


@pytest.mark.parametrize(("rows", "value"), [(1000, float("nan")), (1, float("nan")), (1, float("inf"))])
def test_nonfinite_evaluation_is_never_best(blind, rows, value, tmp_path, caplog):
    """With ``skip``, an evaluation with logits that are not finite has no metrics and is never the best."""
    blind.blind = {12: (rows, value), 36: (rows, value)}
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(blind, "epochs=4", "trainer.on_nonfinite=skip"), run_dir)
    assert summary(run_dir)["best"]["step"] in (24, 48)
    scored = [row for row in metrics(run_dir) if "dev/loss" in row]
    assert [row["dev/accuracy"] is None for row in scored] == [True, False, True, False]
    assert "have logits that are NaN or infinite: this evaluation has no metrics and is never the best" in caplog.text


def test_nonfinite_evaluation_stops_run(blind, tmp_path):
    """An evaluation with logits that are not finite stops the run and names the pairs; the run can be resumed."""
    blind.blind = {12: (1, float("nan"))}
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match=r"of 64 dev pairs have logits that are NaN or infinite at step 12 "):
        run_experiment(bag(blind), run_dir)
    (row,) = nonfinite(run_dir)
    assert row["step"] == 12
    assert len(row["nonfinite/ids"]) < 64
    assert not run_dir.best.exists()
    blind.steps, blind.blind = 10, {12: (1, float("nan"))}
    run_experiment(bag(blind, "trainer.on_nonfinite=skip"), run_dir, resume=True)
    assert summary(run_dir)["best"]["step"] == 24


def test_nonfinite_evaluation_rolls_back(blind, tmp_path, caplog):
    blind.blind = {12: (1, float("nan"))}
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(blind, "trainer.on_nonfinite=rollback", "scheduler=constant"), run_dir)
    assert "back to step 10, learning rate times 0.5" in caplog.text
    assert summary(run_dir)["best"]["step"] in (12, 24)


def test_run_without_finite_evaluation_fails(blind, tmp_path):
    blind.blind = {12: (1, float("nan")), 24: (1, float("nan"))}
    with pytest.raises(RuntimeError, match="no evaluation gave a finite dev/accuracy"):
        run_experiment(bag(blind, "trainer.on_nonfinite=skip"), RunDir(tmp_path / "run"))


@pytest.mark.slow
def test_resume_after_rollback_is_bit_exact(plug, tmp_path):
    """A run that was rolled back and then ended is resumed bit for bit."""
    # the learning rate is infinite once, so that the weights and the next loss are not finite
    source = """
import os, signal
once, ends = {7}, set()
def linear(step, total_steps):
    if step in ends:
        ends.discard(step)
        os.kill(os.getpid(), signal.SIGTERM)
    if step in once:
        once.discard(step)
        return float("inf")
    return 1 - step / total_steps
"""
    import importlib

    schedule = importlib.import_module(plug(source))
    options = ("trainer.on_nonfinite=rollback", "checkpoint.save_steps=5", "dataset.max_test_samples=16")
    config = small(f"scheduler._target_={schedule.__name__}.linear", *options)
    uninterrupted, interrupted = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "interrupted")
    run_experiment(config, uninterrupted)
    assert len(nonfinite(uninterrupted)) == 1
    schedule.once, schedule.ends = {7}, {11}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, interrupted)
    run_experiment(config, interrupted, resume=True)
    assert differences(uninterrupted, interrupted) == []


# Run in a subprocess: a limit on the size of files has the effect of a full disk.
FULL = """
import resource, sys
from pathlib import Path
from helpers import small
from afqmc.runner.experiment import run_experiment
from afqmc.run_dir import RunDir
import torch
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import logging; logging.basicConfig(stream=sys.stdout, level="INFO")
run_experiment(small("checkpoint.save_steps=5", *sys.argv[3:]), RunDir(Path(sys.argv[1])))
"""


def in_a_process(source, *arguments):
    return subprocess.run(
        [PYTHON, "-c", source, *map(str, arguments)],
        cwd=f"{ROOT}/tests/support",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_full_disk_warns(tmp_path):
    """A checkpoint that cannot be written for lack of space is a warning, and the run continues."""
    size = weights_size(tmp_path)
    finished = in_a_process(
        FULL, tmp_path / "run", int(size * 1.5)
    )  # room for the weights, but not for the optimizer state
    assert finished.returncode == 0, finished.stderr
    assert "checkpoints/last could not be written" in finished.stdout
    run_dir = RunDir(tmp_path / "run")
    assert summary(run_dir)["steps"] == 24
    assert not (run_dir.checkpoints / "last").exists()
    verify_checksums(run_dir.best)
    assert not list(run_dir.path.rglob("*.new"))


@pytest.mark.slow
def test_full_disk_stops_run(tmp_path):
    """With ``on_save_failure=stop``, a checkpoint that cannot be written stops the run."""
    size = weights_size(tmp_path)
    finished = in_a_process(FULL, tmp_path / "run", int(size * 1.5), "checkpoint.on_save_failure=stop")
    assert finished.returncode == 1
    assert "(checkpoint.on_save_failure=stop)" in finished.stderr
    assert RunDir(tmp_path / "run").read_status()["status"] == "failed"


def weights_size(tmp_path):
    run_dir = RunDir(tmp_path / "measure")
    run_experiment(small("trainer.max_steps=1"), run_dir)
    return (run_dir.best / "model.safetensors").stat().st_size


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.slow
@pytest.mark.parametrize(("what", "options"), [("no space", "size=3m"), ("no inodes", "size=100m,nr_inodes=24")])
def test_full_file_system_leaves_no_partial_files(tmp_path, what, options):
    """No file under its final name is incomplete when the file system is full."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mounted)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        finished = command("run", *SMALL, f"hydra.run.dir={mounted / 'run'}", "checkpoint.save_steps=3", cwd=tmp_path)
        assert "Traceback" not in finished.stderr
        assert finished.returncode in (0, 1)
        run_dir = RunDir(mounted / "run")
        assert run_dir.summary.exists() is (finished.returncode == 0)
        if finished.returncode:
            assert "No space left" in finished.stderr
        for name in ("last", "previous", "best"):
            if (run_dir.checkpoints / name).exists():
                verify_checksums(run_dir.checkpoints / name)
        for path in (run_dir.path / "predictions").glob("*.jsonl"):
            [json.loads(line) for line in path.read_text().splitlines()]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_run_directory_vanishes(tmp_path, plug, monkeypatch):
    """A run directory that is deleted during the run is reported as one message."""
    vanishing = tmp_path / "run"
    source = f"""
import shutil
def linear(step, total_steps):
    if step == 7:
        shutil.rmtree({str(vanishing)!r})
    return 1 - step / total_steps
"""
    name = plug(source)
    finished = command("run", *SMALL, f"hydra.run.dir={vanishing}", f"scheduler._target_={name}.linear", cwd=tmp_path)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert str(vanishing) in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_write_permission(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    finished = command("run", *SMALL, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr


# Run in a subprocess: a limit on its address space, set after loading, simulates a device with little memory.
SHORT = """
import resource, sys
from pathlib import Path
from helpers import small
from afqmc.runner.experiment import run_experiment
from afqmc.run_dir import RunDir
from afqmc.training.callbacks.base import Callback
import logging; logging.basicConfig(stream=sys.stdout, level="INFO")
class Limit(Callback):
    def on_fit_start(self, trainer):
        for line in open("/proc/self/status"):
            if line.startswith("VmSize"):
                used = int(line.split()[1]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[2]) << 20), resource.RLIM_INFINITY))
config = small("batch_size=96", "model.config_overrides.intermediate_size=16384", "trainer.max_steps=3", *sys.argv[3:])
run_experiment(config, RunDir(Path(sys.argv[1])), callbacks=[Limit()])
"""


def test_out_of_memory_names_options(tmp_path):
    """An out-of-memory error names the options that reduce memory."""
    finished = in_a_process(SHORT, tmp_path / "run", 400)
    assert finished.returncode == 1
    assert "at step 1, with 96 pairs of " in finished.stderr.splitlines()[-1]
    for key in (
        "trainer.auto_microbatch=true",
        "trainer.gradient_checkpointing=true",
        "dataset.max_length",
        "batch_size",
    ):
        assert key in finished.stderr.splitlines()[-1]


@pytest.mark.slow
def test_auto_microbatch(tmp_path):
    """``auto_microbatch`` divides the same batches into more microbatches when memory runs out."""
    finished = in_a_process(SHORT, tmp_path / "run", 400, "trainer.auto_microbatch=true", "trainer.eval_batch_size=8")
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "out of memory: each batch is divided into" in finished.stdout
    uninterrupted = RunDir(tmp_path / "uninterrupted")
    wide = "model.config_overrides.intermediate_size=16384"
    run_experiment(small("batch_size=96", wide, "trainer.max_steps=3"), uninterrupted)
    divided = RunDir(tmp_path / "run")
    lrs = [[row["train/lr"] for row in metrics(run) if "train/lr" in row] for run in (divided, uninterrupted)]
    assert lrs[0] == lrs[1]


def test_gradient_checkpointing_changes_no_bit(tmp_path):
    plain, recomputed = RunDir(tmp_path / "plain"), RunDir(tmp_path / "recomputed")
    run_experiment(small("trainer.max_steps=4"), plain)
    run_experiment(small("trainer.max_steps=4", "trainer.gradient_checkpointing=true"), recomputed)
    assert metrics(plain) == metrics(recomputed)


def test_escaping_link_is_not_written(tmp_path):
    """A link that leads out of the run directory is refused, and its target is not written."""
    run_dir, outside = RunDir(tmp_path / "run"), tmp_path / "mine.txt"
    run_experiment(small("trainer.max_steps=2"), run_dir)
    outside.write_text("precious")
    run_dir.metrics.unlink()
    run_dir.metrics.symlink_to(outside)
    config = small("trainer.max_steps=4")
    with pytest.raises(InputError, match="a link that leads out of"):
        run_experiment(config, run_dir, resume=True)
    assert outside.read_text() == "precious"


WANDB = ("tracker=wandb", "tracker.mode=offline")


def children(process):
    """Yield id and name of the child processes."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name, rest = (path / "comm").read_text().strip(), (path / "stat").read_text().rpartition(")")[2]
        except OSError:
            continue
        if int(rest.split()[1]) == process:
            yield int(path.name), name


@pytest.mark.slow
def test_killed_wandb_service(tmp_path):
    """The run continues when the W&B service is killed."""
    run_dir = RunDir(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *SMALL, *WANDB, "epochs=60", f"hydra.run.dir={run_dir.path}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = []
    while not killed and process.poll() is None:
        killed = [pid for pid, name in children(process.pid) if name.startswith(("wandb", "gpu_stats"))]
        time.sleep(0.01)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert killed
    assert process.returncode == 0, errors
    assert summary(run_dir)["steps"] == 720
    assert "Traceback" not in errors
    assert "the run continues, and its own files are complete without it" in out


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk_of_wandb(tmp_path):
    """The run continues when the disk of the W&B files is full."""
    run_dir = RunDir(tmp_path / "run")
    wandb = run_dir.path / "wandb"
    wandb.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(wandb)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        finished = command("run", *SMALL, *WANDB, f"hydra.run.dir={run_dir.path}", cwd=tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(wandb)], check=True)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    assert summary(run_dir)["steps"] == 24


def test_resumed_run_keeps_wandb_id(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_experiment(small(*WANDB, "trainer.max_steps=2"), run_dir)
    run_experiment(small(*WANDB, "trainer.max_steps=4"), run_dir, resume=True)
    files = list((run_dir.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {path.stem for path in files} == {f"run-{(run_dir.path / 'wandb/id').read_text().strip()}"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_long_run_leaks_nothing(tmp_path):
    """Memory, open files and threads do not grow over 20,000 steps."""
    sizes = {}

    def size():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir("/proc/self/fd")), threading.active_count()

    class Watch(Callback):
        def on_step_end(self, trainer, event):
            if event.step % 2000 == 0:
                sizes[event.step] = size()

    long = (
        "trainer.max_steps=20000",
        "trainer.eval_steps=1000",
        "checkpoint.save_steps=500",
        "trainer.logging_steps=500",
    )
    batches = ("dataset.max_train_samples=4000", "dataset.batching=random", "trainer.mixed_precision=bf16")
    run_experiment(small(*long, *batches), RunDir(tmp_path / "run"), callbacks=[Watch()])
    first, last = sizes[4000], sizes[20000]
    assert last[0] < first[0] * 1.1 + 20, sizes  # MiB
    assert last[1] <= first[1] + 2, sizes
    assert last[2] <= first[2] + 1, sizes
