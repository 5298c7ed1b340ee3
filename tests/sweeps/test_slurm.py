"""Sweeps on a real Slurm: requeue and resume, cancellation, waiting again, searches."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from helpers import PATIENCE_S, SMALL, command
from slurm import missing_requirement, slurm

from afqmc.sweeps.study import StudyConfig, study_name

pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement())),
]
OPTIMIZER = """
import time, torch
class Slow(torch.optim.AdamW):
    def step(self, closure=None):
        time.sleep(0.15)
        return super().step(closure)
"""
ROOT = Path(__file__).parents[2]
ON = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm"), grace_s=60) as environment:
        yield environment


class Submitted:
    """A sweep on Slurm in the background."""

    def __init__(self, cluster, cwd, *arguments):
        self.cluster, self.cwd, self.arguments = cluster, cwd, ("-m", *SMALL, *ON, "sweep.name=s", *arguments)
        self.directory = cwd / "outputs/sweeps/s"
        self.start()

    def start(self):
        environment = {**self.cluster, "PYTHONPATH": f"{self.cwd}:{ROOT}"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "afqmc.run", *self.arguments],
            cwd=self.cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def until(self, enough, seconds=240):
        since = time.monotonic()
        while not enough():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() - since < seconds
            time.sleep(0.2)

    def end(self, seconds=400):
        """Wait for the sweep, and start requeued jobs at once, which Slurm delays by two minutes."""
        since = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() - since < seconds, self.statuses()
            for job in self.slurm("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").splitlines():
                number, reason = job.split(maxsplit=1)
                if reason == "BeginTime":
                    self.slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
            time.sleep(0.5)
        self.printed = self.process.communicate()[0]
        return self.process.returncode

    def slurm(self, *words):
        return subprocess.run(words, env=self.cluster, capture_output=True, text=True, check=False).stdout

    def steps(self, number):
        """Return the optimizer steps that a job has logged."""
        return [step for path in self.directory.glob(f"{number}-*/metrics.jsonl") for step in steps_of(path.parent)]

    def times_resumed(self, number):
        (path,) = self.directory.glob(f"{number}-*/environment.json")
        return len(json.loads(path.read_text()).get("resumed", ()))

    def ids(self):
        """Return Slurm's ids by the numbers of the jobs."""
        try:
            result = json.loads((self.directory / ".slurm/jobs.json").read_text())
        except FileNotFoundError:
            return {}
        return {int(directory.partition("-")[0]): number for directory, number in result.items()}

    def statuses(self):
        return {
            int(path.parent.name.partition("-")[0]): json.loads(path.read_text())["status"]
            for path in self.directory.glob("*/status.json")
        }


def steps_of(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if "train/loss" in row]


def same_bits(one, other):
    assert steps_of(one) == steps_of(other)
    for name in ("checkpoints/best/model.safetensors", "predictions/dev.jsonl", "predictions/test.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture
def slow(tmp_path):
    """Overrides for runs that take about 20 seconds."""
    (tmp_path / "slow.py").write_text(OPTIMIZER)
    return ("optimizer._target_=slow.Slow", "epochs=12", "checkpoint.save_interval_minutes=60")


def test_signalled_jobs_requeue_bit_exactly(cluster, tmp_path, slow):
    """Jobs that Slurm signals are requeued, and end with the same bits as an uninterrupted run."""
    env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    alone = command("run", *SMALL, *slow, "seed=1", "hydra.run.dir=alone", cwd=tmp_path, env=env)
    assert alone.returncode == 0, alone.stderr
    sweep = Submitted(cluster, tmp_path, *slow, "seed=1,2,3")
    for number, sent in ((0, "USR2"), (1, "TERM")):
        sweep.until(lambda number=number: len(sweep.steps(number)) > 5)
        sweep.slurm("scancel", f"--signal={sent}", sweep.ids()[number])
    assert sweep.end() == 0, sweep.printed
    assert sweep.printed.rstrip().endswith("3 completed: outputs/sweeps/s")
    assert [sweep.times_resumed(number) for number in (0, 1, 2)] == [1, 1, 0]
    same_bits(tmp_path / "alone", next(sweep.directory.glob("0-*")))


def test_srun_tasks_form_one_run(cluster, tmp_path):
    """The tasks of srun form one run, which saves its state after scancel."""
    run = tmp_path / "run"
    words = ("srun", "--kill-on-bad-exit", "--ntasks=2", sys.executable, "-m", "afqmc.run", *SMALL, "epochs=9999")
    process = subprocess.Popen(
        [*words, f"hydra.run.dir={run}"], cwd=tmp_path,
        env={**cluster, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    since = time.monotonic()
    while not (run / "metrics.jsonl").exists() or len(steps_of(run)) < 15:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - since < PATIENCE_S
        time.sleep(0.2)
    (number,) = subprocess.run(["squeue", "-h", "-o", "%i"], env=cluster, capture_output=True, text=True).stdout.split()
    subprocess.run(["scancel", number], env=cluster, check=True)
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert printed.count("processes: 2, ddp; a batch of 8 pairs is 2 processes x 4 pairs") == 1
    result = json.loads((run / "status.json").read_text())
    assert result["status"] == "interrupted"
    assert steps_of(run) == list(range(1, result["step"] + 1))
    assert (run / "checkpoints/last").is_dir()


def test_multi_process_job_resumes_after_requeue(cluster, tmp_path, slow):
    """A job of several processes is one run, and resumes after a requeue."""
    sweep = Submitted(cluster, tmp_path, *slow, "epochs=3", "seed=1", "hydra.launcher.tasks_per_node=2")
    sweep.until(lambda: len(sweep.steps(0)) > 5)
    sweep.slurm("scancel", "--signal=USR2", sweep.ids()[0])
    assert sweep.end() == 0, sweep.printed
    assert sweep.times_resumed(0) == 1
    assert sweep.steps(0) == list(range(1, 37))
    (log,) = sweep.directory.glob("0-*/run.log")
    assert log.read_text().count("a batch of 8 pairs is 2 processes x 4 pairs") == 2
    assert "rank 1 of 2" in (log.parent / "logs/rank-1.log").read_text()


def test_pruning_ends_all_processes(cluster, tmp_path, slow):
    """Pruning a trial ends all its processes."""
    arguments = (
        "hydra/sweeper=optuna", "lr=tag(log,interval(1e-9,1e-2))", "hydra.sweeper.sampler=random",
        "hydra.sweeper.seed=7",  # samples 3e-4, then 7e-8
        "hydra.launcher.n_jobs=1", "hydra.launcher.tasks_per_node=2", "hydra.sweeper.n_trials=2",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_kwargs={n_startup_trials:1}", "trainer.monitor=dev/loss",
    )  # fmt: skip
    sweep = Submitted(cluster, tmp_path, *slow, "epochs=2", *arguments)
    assert sweep.end() == 0, sweep.printed
    assert sweep.statuses() == {0: "completed", 1: "pruned"}
    (log,) = sweep.directory.glob("1-*/logs/rank-1.log")
    assert "pruned after evaluation 1: dev/loss" in log.read_text()


def test_time_limit_requeues_job(cluster, tmp_path, slow):
    """A job that reaches its time limit is requeued and resumed."""
    minute = ("hydra.launcher.time=1", "hydra.launcher.signal_delay_s=20", "+hydra.launcher.exclusive=true")
    sweep = Submitted(cluster, tmp_path, *slow, "epochs=24", "seed=1,2", "hydra.launcher.n_jobs=1", *minute)
    assert sweep.end(800) == 0, sweep.printed
    for number in (0, 1):
        assert sweep.times_resumed(number) >= 1
        assert sweep.steps(number) == list(range(1, 289))


def test_preempted_job_is_requeued(cluster, tmp_path, slow):
    """A pre-empted job is requeued and resumed."""
    sweep = Submitted(cluster, tmp_path, *slow, "seed=1,2", "+hydra.launcher.exclusive=true")
    sweep.until(lambda: len(sweep.steps(0)) > 5)
    sweep.slurm("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    assert sweep.end() == 0, sweep.printed
    assert "this job is preempted" in next(sweep.directory.glob("0-*/console.log")).read_text()
    assert sweep.times_resumed(0) == 1
    assert sweep.steps(0) == sweep.steps(1) == list(range(1, 145))


def test_cancelled_job_is_recorded(cluster, tmp_path, slow):
    """A cancelled job is recorded and can be retried; the others continue."""
    sweep = Submitted(cluster, tmp_path, *slow, "seed=1,2,3", "hydra.launcher.n_jobs=1")
    sweep.until(lambda: len(sweep.steps(0)) > 5)
    sweep.slurm("scancel", sweep.ids()[0])
    sweep.slurm("scancel", sweep.ids()[2])  # not started yet
    assert sweep.end() == 1
    assert sweep.statuses() == {0: "cancelled", 1: "completed", 2: "cancelled"}
    assert "1 completed, 2 cancelled" in sweep.printed
    rows = [json.loads(line) for line in (sweep.directory / "results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["cancelled", "completed", "cancelled"]
    assert "Slurm job" in rows[0]["error"]
    sweep.arguments += ("sweep.retry_failed=true",)
    sweep.start()
    assert sweep.end() == 0, sweep.printed
    assert sweep.times_resumed(0) == 1
    assert sweep.steps(0) == sweep.steps(1) == list(range(1, 145))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_jobs_outlive_the_submitting_process(cluster, tmp_path, slow, number):
    """Jobs continue after the submitting process has ended, and are not submitted twice."""
    sweep = Submitted(cluster, tmp_path, *slow, "seed=1,2", "hydra.launcher.n_jobs=1")
    sweep.until(lambda: len(sweep.steps(0)) > 5)
    ids = sweep.ids()
    sweep.process.send_signal(number)
    printed = sweep.process.communicate(timeout=PATIENCE_S)[0]
    assert sweep.process.returncode in (130, -9)
    assert number == signal.SIGKILL or "stay in Slurm" in printed
    sweep.start()
    assert sweep.end() == 0, sweep.printed
    assert "2 jobs are already in Slurm" in sweep.printed
    assert sweep.ids() == ids
    assert [sweep.times_resumed(number) for number in (0, 1)] == [0, 0]


def test_killed_job_is_recorded_as_failed(cluster, tmp_path, slow):
    """A killed job is recorded as failed."""
    sweep = Submitted(cluster, tmp_path, *slow, "seed=1,2")
    sweep.until(lambda: len(sweep.steps(0)) > 5)
    (path,) = sweep.directory.glob("0-*/status.json")
    os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)  # as the kernel does when memory runs out
    assert sweep.end() == 1
    assert sweep.statuses() == {0: "failed", 1: "completed"}
    assert "FAILED; see" in sweep.printed


def test_concurrent_jobs_share_the_journal(cluster, tmp_path, slow):
    """Two concurrent jobs report their evaluations to the same journal."""
    arguments = (
        "hydra/sweeper=optuna", "lr=tag(log,interval(1e-5,1e-3))", "hydra.sweeper.n_trials=4",
        "hydra.launcher.n_jobs=2",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_kwargs={n_startup_trials:2}",
        "trainer.monitor=dev/roc_auc",
    )  # fmt: skip
    sweep = Submitted(cluster, tmp_path, *slow, *arguments)
    sweep.until(lambda: sweep.slurm("squeue", "-h", "-t", "RUNNING").count("\n") == 2)
    assert sweep.end() == 0, sweep.printed
    trials = optuna.load_study(
        study_name=study_name(StudyConfig(), sweep.directory), storage=StudyConfig().open_storage(sweep.directory)
    ).trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    for trial in trials:
        (run,) = sweep.directory.glob(f"{trial.number}-*")
        assert trial.intermediate_values  # reported by the job while it ran
        if sweep.statuses()[trial.number] == "completed":
            assert trial.value == json.loads((run / "summary.json").read_text())["best"]["dev/roc_auc"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.partition=nowhere", "invalid partition"),
        ("+hydra.launcher.partitoin=low", "partitoin"),
        ("hydra.launcher.time=0", "hydra.launcher.time=0: must be >= 1"),
        ("hydra.launcher.signal_delay_s=99999", "signal_delay_s=99999: must be > 0 and less than"),
        ("hydra.launcher.tasks_per_node=0", "hydra.launcher.tasks_per_node=0: must be >= 1"),
        ("distributed.strategy=fsdp", "2 of 2 jobs cannot run; none was started"),
        ("sweep.fail_fast=true", "hydra/launcher=slurm does not support it"),
    ],
)
def test_invalid_slurm_settings_are_refused(cluster, tmp_path, override, message):
    """Invalid settings give one message and no traceback."""
    done = command("run", "-m", *SMALL, *ON, "seed=1,2", override, cwd=tmp_path, env=cluster)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_slurm_is_reported(tmp_path):
    """Without a working Slurm the error names squeue."""
    done = command("run", "-m", *SMALL, *ON, "seed=1,2", cwd=tmp_path, env={"SLURM_CONF": str(tmp_path / "none")})
    assert done.returncode == 2
    assert "hydra/launcher=slurm: squeue" in done.stderr
