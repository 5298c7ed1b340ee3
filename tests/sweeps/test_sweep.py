"""Sweeps: plan, checks before the start, failures, resuming and results."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL, command, environment

from afqmc.run_dir import RunDir
from afqmc.sweeps.plan import Job, Sweep, merge_plan
from afqmc.sweeps.results_table import Results
from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import is_locked, locked
from hydra_plugins.afqmc_sweeps._subprocesses import call_in_process, process_context

TINY = (*SMALL, "epochs=1", "dataset.max_train_samples=32")
OPTIMIZER = """
import os, signal, torch
class Fragile(torch.optim.AdamW):
    def step(self, closure=None):
        lr = self.param_groups[0]["initial_lr"]
        if lr == 2e-4:
            raise RuntimeError("this one fails")
        if lr == 3e-4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)
"""


def sweep(cwd, *arguments, env=None):
    return command("run", "-m", *TINY, *arguments, cwd=cwd, env=env)


def results(directory):
    with (directory / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text("utf-8").splitlines()]
    assert [row["directory"] for row in rows] == [row["directory"] for row in lines]
    return lines


def statuses(directory):
    return {path.parent.name: json.loads(path.read_text())["status"] for path in directory.glob("*/status.json")}


@pytest.fixture
def fragile(tmp_path):
    (tmp_path / "fragile.py").write_text(OPTIMIZER)


def test_grid_runs_every_combination(tmp_path):
    """Each combination gets a run directory and a row of results; added values run only the new jobs."""
    done = sweep(tmp_path, "lr=1e-3,1e-4", "seed=1,2", "sweep.name=grid")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "outputs/sweeps/grid"
    assert done.stdout.rstrip().endswith("4 completed: outputs/sweeps/grid")
    plan = json.loads((directory / "sweep.json").read_text())
    names = ["0-lr-0.001_seed-1", "1-lr-0.001_seed-2", "2-lr-0.0001_seed-1", "3-lr-0.0001_seed-2"]
    assert [job["directory"] for job in plan["jobs"]] == names
    rows = results(directory)
    for row, name in zip(rows, names, strict=True):
        summary = json.loads((directory / name / "summary.json").read_text())
        assert row["status"] == "completed"
        assert row["dev/roc_auc"] == summary["best"]["dev/roc_auc"]
        assert (directory / name / ".hydra/overrides.yaml").exists()
        assert "epoch 1" in (directory / name / "run.log").read_text()
    assert [(float(row["lr"]), row["seed"]) for row in rows] == [(1e-3, "1"), (1e-3, "2"), (1e-4, "1"), (1e-4, "2")]
    again = sweep(tmp_path, "lr=1e-3,1e-4", "seed=1,2,3", "sweep.name=grid")
    assert again.returncode == 0, again.stderr
    assert "4 of 6 jobs have ended already" in again.stdout
    assert again.stdout.count(" starts") == 2
    assert sorted(statuses(directory)) == [*names, "4-lr-0.001_seed-3", "5-lr-0.0001_seed-3"]


@pytest.mark.slow
def test_job_equals_single_run(tmp_path):
    """A job of a sweep produces the same weights and predictions as the run alone."""
    threads = {"OMP_NUM_THREADS": "1"}  # the same number for both, as it affects float sums
    assert sweep(tmp_path, "seed=3,4", "hydra.launcher.n_jobs=2", env=threads).returncode == 0
    alone = command("run", *TINY, "seed=4", "hydra.run.dir=alone", cwd=tmp_path, env=threads)
    assert alone.returncode == 0
    in_sweep = next((tmp_path / "outputs/sweeps").glob("*/1-*"))
    for name in ("checkpoints/best/model.safetensors", "predictions/dev.jsonl"):
        assert (in_sweep / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert "epoch 1" in (in_sweep / "console.log").read_text()


@pytest.mark.slow
def test_jobs_import_no_library_of_their_own(tmp_path):
    """Large libraries are imported by the process that is forked for each job, not by each job."""
    overrides = (*TINY, "seed=1,2,3", "hydra.launcher.start_method=forkserver")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "afqmc.run", "-m", *overrides],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imports = Counter(line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import"))
    assert imports["torch"] == 2  # also by the process of the sweep, after the jobs
    for library in ("sklearn", "statsmodels", "peft", "transformers.models.bert.modeling_bert"):
        assert imports[library] <= 2, library


def test_invalid_jobs_are_reported_before_start(tmp_path):
    """Invalid jobs are listed with their overrides, and no job is started."""
    done = sweep(tmp_path, "lr=1e-3,-1", "seed=1,2", "sweep.name=bad")
    assert done.returncode == 2
    assert "2 of 4 jobs cannot run; none was started" in done.stderr
    assert re.search(r"lr=-1 seed=2.*: lr=-1(\.0)?: must be > 0", done.stderr)
    assert not statuses(tmp_path / "outputs/sweeps/bad")
    assert not (tmp_path / "outputs/sweeps/bad/sweep.json").exists()  # so that the name can be used again


@pytest.mark.parametrize(
    "override",
    [
        "dataset=sample,jsonl",  # no files given
        pytest.param("model=mini,rbt3", marks=pytest.mark.slow),  # an unreachable hub
        pytest.param("distributed.strategy=ddp,fsdp", marks=pytest.mark.slow),  # a single process
    ],
)
def test_missing_data_model_or_processes_are_reported(tmp_path, override):
    """Missing data, models and processes are also reported before the first job starts."""
    done = sweep(tmp_path, override, "sweep.name=worse", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2, done.stdout
    assert "1 of 2 jobs cannot run; none was started" in done.stderr
    assert override.split(",")[1] in done.stderr
    assert "Traceback" not in done.stderr
    assert not statuses(tmp_path / "outputs/sweeps/worse")


@pytest.mark.usefixtures("fragile")
def test_failed_or_killed_job_leaves_others(tmp_path):
    """Other jobs continue after one has failed or was killed, and both are recorded as failed."""
    arguments = ("optimizer._target_=fragile.Fragile", "lr=1e-4,2e-4,3e-4,4e-4", "sweep.name=some")
    done = sweep(tmp_path, *arguments)
    directory = tmp_path / "outputs/sweeps/some"
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("2 completed, 2 failed: outputs/sweeps/some")
    assert (
        f"failed: outputs/sweeps/some/{next(directory.glob('1-*')).name} (RuntimeError: this one fails)" in done.stderr
    )
    assert [row["status"] for row in results(directory)] == ["completed", "failed", "failed", "completed"]
    raised, killed = (json.loads((next(directory.glob(f"{n}-*")) / "status.json").read_text()) for n in (1, 2))
    assert "fragile.py" in raised["traceback"]
    assert "SIGKILL" in killed["error"]


@pytest.mark.usefixtures("fragile")
@pytest.mark.slow
def test_retry_failed_reruns_failed_jobs(tmp_path):
    """Failed jobs are rerun only with sweep.retry_failed=true."""
    arguments = ("optimizer._target_=fragile.Fragile", "lr=1e-4,2e-4,3e-4", "sweep.name=some")
    assert sweep(tmp_path, *arguments).returncode == 1
    again = sweep(tmp_path, *arguments)
    assert again.returncode == 1
    assert " starts" not in again.stdout
    (tmp_path / "fragile.py").write_text(OPTIMIZER.replace("2e-4", "0").replace("3e-4", "0"))
    retried = sweep(tmp_path, *arguments, "sweep.retry_failed=true")
    assert retried.returncode == 0, retried.stderr
    assert retried.stdout.count(" starts\n") == 2


@pytest.mark.usefixtures("fragile")
@pytest.mark.slow
def test_fail_fast_starts_no_more_jobs(tmp_path):
    """With sweep.fail_fast=true no job is started after a failure."""
    arguments = ("optimizer._target_=fragile.Fragile", "lr=2e-4,1e-4,4e-4", "sweep.name=fast", "sweep.fail_fast=true")
    done = sweep(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("1 failed, 2 planned: outputs/sweeps/fast")


class Killed:
    """A sweep of four jobs in the background."""

    def __init__(self, cwd, *more):
        self.arguments = ("-m", *SMALL, "epochs=3", "seed=range(4)", "sweep.name=long", *more)
        self.cwd, self.directory = cwd, cwd / "outputs/sweeps/long"

    def start(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(
            [sys.executable, "-m", "afqmc.run", *self.arguments],
            cwd=self.cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def until(self, process, enough):
        since = time.monotonic()
        while not enough():
            assert process.poll() is None
            assert time.monotonic() - since < PATIENCE_S
            time.sleep(0.05)

    def completed(self):
        return len(list(self.directory.glob("*/summary.json")))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_sweep_resumes(tmp_path, number):
    """A sweep that was killed or interrupted resumes its jobs and repeats no completed one."""
    long = Killed(tmp_path)
    process = long.start()
    long.until(
        process, lambda: long.completed() >= 1 and any("running" in s for s in statuses(long.directory).values())
    )
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    before = {path: path.stat().st_mtime_ns for path in long.directory.glob("*/summary.json")}
    assert 1 <= len(before) < 4
    again = command("run", *long.arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{len(before)} of 4 jobs have ended already" in again.stdout
    assert long.completed() == 4
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for path in long.directory.glob("*/metrics.jsonl"):
        steps = [row["step"] for row in map(json.loads, path.read_text().splitlines()) if "train/loss" in row]
        assert steps == list(range(1, 37))


def test_killed_check_is_reported():
    """A check process that is killed gives an error that names the signal."""
    with pytest.raises(
        RuntimeError, match="did not finish: killed by SIGKILL .as the kernel does when memory runs out"
    ):
        call_in_process(process_context("spawn"), signal.raise_signal, signal.SIGKILL)


def test_unwritable_results_do_not_stop_sweep(tmp_path, caplog):
    """Results that cannot be written cause a warning, and are written once that is possible."""
    (tmp_path / "results.csv").mkdir()  # a file cannot replace a directory, even as root
    table = Results(Sweep(tmp_path), [Job(0, "0-a", ("lr=1",))])
    with table.auto_refresh():
        (tmp_path / "0-a").mkdir()
        (tmp_path / "0-a/status.json").write_text('{"status": "failed"}')
    assert table.write_error
    assert "could not be written" in caplog.text
    (tmp_path / "results.csv").rmdir()
    with table.auto_refresh():
        pass
    assert table.write_error is None
    assert results(tmp_path)[0]["status"] == "failed"


def test_locked_sweep_is_refused(tmp_path):
    """A sweep that another process has locked is refused."""
    with locked(tmp_path / "outputs/sweeps/mine", "sweep"):
        done = sweep(tmp_path, "seed=1,2", "sweep.name=mine")
    assert done.returncode == 2
    assert "another process is using this sweep" in done.stderr
    assert not is_locked(tmp_path / "outputs/sweeps/mine")


@pytest.mark.slow
def test_started_sweep_ignores_changed_conf(tmp_path):
    """A sweep that has started uses its copy of conf/; before that, changes take effect."""
    mine = tmp_path / "mine/experiment/own.yaml"
    mine.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - quickstart\nlr: 7e-4\n"
    mine.write_text(text.replace("7e-4", "-1"))
    own = ("--config-dir", str(tmp_path / "mine"), *("experiment=own" if s.startswith("exp") else s for s in TINY))
    arguments = ("-m", *own, "sweep.name=frozen")
    assert command("run", *arguments, "seed=1,2", cwd=tmp_path).returncode == 2
    mine.write_text(text)  # nothing has started, so the fixed file is used
    assert command("run", *arguments, "seed=1,2", cwd=tmp_path).returncode == 0
    mine.write_text(text.replace("7e-4", "8e-4"))
    done = command("run", *arguments, "seed=1,2,3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "conf/ has been changed" in done.stdout
    for path in (tmp_path / "outputs/sweeps/frozen").glob("*/config.yaml"):
        assert "lr: 0.0007" in path.read_text()


@pytest.mark.slow
def test_started_sweep_ignores_edited_search(tmp_path):
    """A sweep that has started keeps its prepared search space; the command line still overrides it."""
    mine = tmp_path / "mine/sweep/own.yaml"
    mine.parent.mkdir(parents=True)
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {lr: '1e-3,1e-4'}}}\nsweep: {name: own}\n"
    mine.write_text(
        "\n".join([text.splitlines()[0], "defaults: [{override /hydra/sweeper: grid}]", *text.splitlines()[1:]])
    )
    arguments = ("--config-dir", str(tmp_path / "mine"), *TINY, "sweep=own")
    assert command("run", *arguments, cwd=tmp_path).returncode == 0
    mine.write_text(mine.read_text().replace("1e-4", "1e-5,1e-6"))
    done = command("run", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "conf/ has been changed" in done.stdout
    assert "2 of 2 jobs have ended already" in done.stdout
    assert done.stdout.rstrip().endswith("2 completed: outputs/sweeps/own")
    assert command("run", *arguments, "lr=1e-3,1e-2", cwd=tmp_path).stdout.count(" starts") == 1


@pytest.mark.slow
def test_name_of_another_sweep_is_refused(tmp_path):
    """A sweep with other jobs is refused under the same name, and changes no file."""
    assert sweep(tmp_path, "seed=1,2", "trainer.max_steps=1", "sweep.name=one").returncode == 0
    files = [tmp_path / "outputs/sweeps/one" / name for name in ("sweep.json", "results.csv", "results.jsonl")]
    before = [file.read_bytes() for file in files]
    assert sweep(tmp_path, "seed=1,2,-1", "trainer.max_steps=1", "sweep.name=one").returncode == 2
    done = sweep(tmp_path, "lr=1e-3,1e-4", "trainer.max_steps=1", "sweep.name=one")
    assert done.returncode == 2
    assert "has other jobs, such as" in done.stderr
    assert [file.read_bytes() for file in files] == before
    assert "Traceback" not in done.stderr


def test_extended_plan_keeps_numbers():
    """New jobs are numbered after the existing ones, whatever the order of their overrides."""
    planned = [Job(0, "0-a", ("lr=1", "x=1")), Job(1, "1-b", ("lr=2", "x=1"))]
    jobs, selected = merge_plan(planned, [("b", ["lr=2", "x=1"]), ("c", ["lr=3", "x=1"]), ("b", ["lr=2", "x=1"])])
    assert [job.directory for job in jobs] == ["0-a", "1-b", "2-c"]
    assert [job.number for job in selected] == [1, 2]
    assert merge_plan(planned, [("b", ["x=1", "lr=2"])])[1] == [
        Job(1, "1-b", ("x=1", "lr=2"))
    ]  # overrides in another order
    with pytest.raises(InputError, match="has other jobs, such as 0-a"):
        merge_plan(planned, [("c", ["lr=3"])])


def test_plan_stores_no_secrets(tmp_path):
    """Secrets are redacted in the plan, and its jobs still match the overrides as typed."""
    tmp_path.mkdir(exist_ok=True)
    jobs, selected = merge_plan([], [("a", ["+model.kwargs.api_key=abcdefgh", "seed=1"])])
    assert selected[0].overrides == ("+model.kwargs.api_key=abcdefgh", "seed=1")
    Sweep(tmp_path).write(selected, {"axes": ["+model.kwargs.api_key=abcdefgh"]})
    assert "abcdefgh" not in (tmp_path / "sweep.json").read_text()
    jobs, selected = merge_plan(Sweep(tmp_path).read(), [("a", ["+model.kwargs.api_key=abcdefgh", "seed=1"])])
    assert len(jobs) == 1
    assert "abcdefgh" in selected[0].overrides[0]
    assert "abcdefgh" not in " ".join(selected[0].redacted_overrides)


@pytest.mark.parametrize("directory", ["../elsewhere", "/elsewhere", "..", "a/b"])
def test_untrusted_plan_cannot_leave_directory(tmp_path, directory):
    """Job directories outside of the sweep make a plan invalid."""
    plan = {"jobs": [{"number": 0, "directory": directory, "overrides": []}]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match="invalid plan of a sweep"):
        Sweep(tmp_path).read()


@pytest.mark.parametrize("name", ["a/b", "..", "''"])
def test_sweep_name_must_be_directory_name(tmp_path, name):
    """A sweep name with slashes, or an empty one, is invalid."""
    done = sweep(tmp_path, "seed=1,2", f"sweep.name={name}")
    assert done.returncode == 2
    assert "must be the name of a directory" in done.stderr


def test_lock_is_visible_until_released(tmp_path):
    """A lock is visible to others until its owner releases it."""
    run_dir = RunDir(tmp_path / "run")
    assert not is_locked(run_dir.path)
    with run_dir.locked():
        assert is_locked(run_dir.path)
    assert not is_locked(run_dir.path)
