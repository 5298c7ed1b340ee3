"""What nights bring, made to happen for real: a full disk, a directory gone, losses that are no numbers, no memory."""

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
from helpers import PATIENCE_S, SMALL, command, small, summary

from afqmc.checkpoint.store import verify_checksums
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.training.callbacks.base import Callback
from afqmc.training.step import NonFiniteLossError
from afqmc.utils.errors import InputError

ROOT = str(Path(__file__).parents[1])

# A model of one's own whose loss is not a number for the given batch, the first so many times that it comes by.
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


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(model, tmp_path):
    model.bad, model.times = {7}, 1
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 7 .lr "):
        run_experiment(bag(model), run_dir)
    (row,) = nonfinite(run_dir)
    assert (row["step"], row["nonfinite/loss"], len(row["nonfinite/ids"])) == (7, "nan", 8)
    assert run_dir.read_status()["status"] == "failed"
    assert not run_dir.summary.exists()


def test_such_a_batch_can_be_left_out_a_limited_number_of_times(model, tmp_path):
    model.bad, model.times = {7, 9}, 2
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(model, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=2"), run_dir)
    assert [row["step"] for row in nonfinite(run_dir)] == [7, 9]
    assert [row["step"] for row in metrics(run_dir) if "train/loss" in row] == [*range(1, 7), 8, *range(10, 25)]
    model.calls, model.bad, model.times = 0, {7, 9}, 2
    with pytest.raises(NonFiniteLossError, match="step 9"):
        run_experiment(bag(model, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=1"), RunDir(tmp_path / "other"))


def test_the_run_can_go_back_to_its_last_checkpoint_with_a_lower_rate(model, tmp_path, caplog):
    model.bad, model.times = {7}, 1
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(model, "trainer.on_nonfinite=rollback", "scheduler=constant"), run_dir)
    assert "back to step 5, learning rate times 0.5 (1 of at most 10 rollbacks)" in caplog.text
    found = [(row["step"], row["train/lr"]) for row in metrics(run_dir) if "train/lr" in row]
    assert found == [(step, 5e-4 if step <= 5 else 2.5e-4) for step in range(1, 25)]
    assert [row["step"] for row in nonfinite(run_dir)] == [7]


def test_going_back_ends_when_it_does_not_help(model, tmp_path):
    model.bad, model.times = set(range(7, 100)), 100
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(NonFiniteLossError):
        run_experiment(bag(model, "trainer.on_nonfinite=rollback", "trainer.max_nonfinite=3"), run_dir)
    assert len(nonfinite(run_dir)) >= 1


BLIND = """
import torch
steps, blind = 0, {}  # the first so many rows of each dev batch get this value after so many steps
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
def test_an_evaluation_with_logits_that_are_no_numbers_is_never_the_best(blind, rows, value, tmp_path, caplog):
    blind.blind = {12: (rows, value), 36: (rows, value)}
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(blind, "epochs=4", "trainer.on_nonfinite=skip"), run_dir)
    assert summary(run_dir)["best"]["step"] in (24, 48)
    scored = [row for row in metrics(run_dir) if "dev/loss" in row]
    assert [row["dev/accuracy"] is None for row in scored] == [True, False, True, False]
    assert "have logits that are NaN or infinite: this evaluation has no metrics and is never the best" in caplog.text


def test_such_an_evaluation_stops_the_run_names_the_pairs_and_can_be_resumed(blind, tmp_path):
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


def test_after_such_an_evaluation_the_run_can_go_back_to_its_last_checkpoint(blind, tmp_path, caplog):
    blind.blind = {12: (1, float("nan"))}
    run_dir = RunDir(tmp_path / "run")
    run_experiment(bag(blind, "trainer.on_nonfinite=rollback", "scheduler=constant"), run_dir)
    assert "back to step 10, learning rate times 0.5" in caplog.text
    assert summary(run_dir)["best"]["step"] in (12, 24)


def test_a_run_without_a_defined_evaluation_fails(blind, tmp_path):
    blind.blind = {12: (1, float("nan")), 24: (1, float("nan"))}
    with pytest.raises(RuntimeError, match="no evaluation gave a finite dev/accuracy"):
        run_experiment(bag(blind, "trainer.on_nonfinite=skip"), RunDir(tmp_path / "run"))


@pytest.mark.slow
def test_a_run_that_went_back_and_is_ended_goes_on_as_if_it_had_not_been(plug, tmp_path):
    # the learning rate is not finite at one step, the first time: then neither are the weights, nor the next loss
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
    whole, ended = RunDir(tmp_path / "whole"), RunDir(tmp_path / "ended")
    run_experiment(config, whole)
    assert len(nonfinite(whole)) == 1
    schedule.once, schedule.ends = {7}, {11}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, ended)
    run_experiment(config, ended, resume=True)
    assert differences(whole, ended) == []


# Run in a process of its own: a limit on the size of files is a disk that is full for the large ones.
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
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "PYTHONPATH": os.pathsep.join((ROOT, "."))},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_checkpoint_that_finds_the_disk_full_is_said_and_the_run_goes_on(tmp_path):
    size = weights_size(tmp_path)
    found = in_a_process(FULL, tmp_path / "run", int(size * 1.5))  # room for the weights, not for the optimizer too
    assert found.returncode == 0, found.stderr
    assert "checkpoints/last could not be written" in found.stdout
    run_dir = RunDir(tmp_path / "run")
    assert summary(run_dir)["steps"] == 24
    assert not (run_dir.checkpoints / "last").exists()
    verify_checksums(run_dir.best)
    assert not list(run_dir.path.rglob("*.new"))


@pytest.mark.slow
def test_a_checkpoint_that_finds_the_disk_full_can_stop_the_run(tmp_path):
    size = weights_size(tmp_path)
    found = in_a_process(FULL, tmp_path / "run", int(size * 1.5), "checkpoint.on_save_failure=stop")
    assert found.returncode == 1
    assert "(checkpoint.on_save_failure=stop)" in found.stderr
    assert RunDir(tmp_path / "run").read_status()["status"] == "failed"


def weights_size(tmp_path):
    run_dir = RunDir(tmp_path / "measure")
    run_experiment(small("trainer.max_steps=1"), run_dir)
    return (run_dir.best / "model.safetensors").stat().st_size


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.slow
@pytest.mark.parametrize(("what", "options"), [("no space", "size=3m"), ("no inodes", "size=100m,nr_inodes=24")])
def test_a_file_system_without_room_leaves_no_half_file_under_a_final_name(tmp_path, what, options):
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        found = command("run", *SMALL, f"hydra.run.dir={place / 'run'}", "checkpoint.save_steps=3", cwd=tmp_path)
        assert "Traceback" not in found.stderr
        assert found.returncode in (0, 1)
        run_dir = RunDir(place / "run")
        assert run_dir.summary.exists() is (found.returncode == 0)
        if found.returncode:
            assert "No space left" in found.stderr
        for name in ("last", "previous", "best"):
            if (run_dir.checkpoints / name).exists():
                verify_checksums(run_dir.checkpoints / name)
        for path in (run_dir.path / "predictions").glob("*.jsonl"):
            [json.loads(line) for line in path.read_text().splitlines()]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_directory_that_vanishes_is_one_message(tmp_path, plug, monkeypatch):
    source = """
import os, shutil
def linear(step, total_steps):
    if step == 7:
        shutil.rmtree(os.environ["VANISHES"])
    return 1 - step / total_steps
"""
    name = plug(source)
    place = tmp_path / "run"
    env = {"VANISHES": str(place), "PYTHONPATH": os.pathsep.join((str(tmp_path), ROOT))}
    found = command("run", *SMALL, f"hydra.run.dir={place}", f"scheduler._target_={name}.linear", cwd=tmp_path, env=env)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert str(place) in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    found = command("run", *SMALL, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


# Run in a process of its own: a limit on its address space, taken once all is loaded, is a device with little memory.
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
                there = int(line.split()[1]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (there + (int(sys.argv[2]) << 20), resource.RLIM_INFINITY))
config = small("batch_size=96", "model.architecture.intermediate_size=16384", "trainer.max_steps=3", *sys.argv[3:])
run_experiment(config, RunDir(Path(sys.argv[1])), callbacks=[Limit()])
"""


def test_too_little_memory_is_told_with_what_makes_it_enough(tmp_path):
    found = in_a_process(SHORT, tmp_path / "run", 400)
    assert found.returncode == 1
    assert "at step 1, with 96 pairs of " in found.stderr.splitlines()[-1]
    for key in (
        "trainer.auto_microbatch=true",
        "trainer.gradient_checkpointing=true",
        "dataset.max_length",
        "batch_size",
    ):
        assert key in found.stderr.splitlines()[-1]


@pytest.mark.slow
def test_with_auto_batch_the_same_batch_is_worked_through_in_parts(tmp_path):
    found = in_a_process(SHORT, tmp_path / "run", 400, "trainer.auto_microbatch=true", "trainer.eval_batch_size=8")
    assert found.returncode == 0, found.stderr[-2000:]
    assert "out of memory: the same batches are worked through in" in found.stdout
    whole = RunDir(tmp_path / "whole")
    run_experiment(small("batch_size=96", "model.architecture.intermediate_size=16384", "trainer.max_steps=3"), whole)
    in_parts = RunDir(tmp_path / "run")
    one, other = ([row["train/lr"] for row in metrics(run) if "train/lr" in row] for run in (in_parts, whole))
    assert one == other


def test_recomputing_the_forward_pass_changes_no_bit(tmp_path):
    plain, less = RunDir(tmp_path / "plain"), RunDir(tmp_path / "less")
    run_experiment(small("trainer.max_steps=4"), plain)
    run_experiment(small("trainer.max_steps=4", "trainer.gradient_checkpointing=true"), less)
    assert metrics(plain) == metrics(less)


def test_a_link_that_leads_out_of_a_run_is_never_written_through(tmp_path):
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
    """Of a process, by number and name."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name, rest = (path / "comm").read_text().strip(), (path / "stat").read_text().rpartition(")")[2]
        except OSError:
            continue
        if int(rest.split()[1]) == process:
            yield int(path.name), name


@pytest.mark.slow
def test_a_wandb_service_that_is_killed_stops_nothing(tmp_path):
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
        killed = [number for number, name in children(process.pid) if name.startswith(("wandb", "gpu_stats"))]
        time.sleep(0.01)
    for number in killed:
        os.kill(number, signal.SIGKILL)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert killed
    assert process.returncode == 0, errors
    assert summary(run_dir)["steps"] == 720
    assert "Traceback" not in errors
    assert "the run goes on, and its own files are complete without it" in out


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_of_wandb_stops_nothing(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    place = run_dir.path / "wandb"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        found = command("run", *SMALL, *WANDB, f"hydra.run.dir={run_dir.path}", cwd=tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert summary(run_dir)["steps"] == 24


def test_a_run_that_is_gone_on_with_is_the_same_wandb_run(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_experiment(small(*WANDB, "trainer.max_steps=2"), run_dir)
    run_experiment(small(*WANDB, "trainer.max_steps=4"), run_dir, resume=True)
    files = list((run_dir.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {path.stem for path in files} == {f"run-{(run_dir.path / 'wandb/id').read_text().strip()}"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_long_run_stays_the_size_it_was(tmp_path):
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
