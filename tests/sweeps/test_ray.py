"""Sweeps on a real Ray: processes, shared cores and GPUs, killed workers, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL, command

pytest.importorskip("ray", reason="pip install -e '.[ray]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OPTIMIZER = """
import json, os, signal, time, torch
class Watched(torch.optim.AdamW):
    def step(self, closure=None):
        time.sleep(0.1)
        seen = {"pid": os.getpid(), "threads": torch.get_num_threads(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "time": time.time()}
        with open("seen.jsonl", "a") as file:
            print(json.dumps(seen), file=file)
        if self.param_groups[0]["initial_lr"] == 3e-4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)
"""
TINY = (*SMALL, "epochs=8", "optimizer._target_=watched.Watched", "hydra/launcher=ray", "sweep.name=s")


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "watched.py").write_text(OPTIMIZER)
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}


def seen(cwd):
    """Return the rows that each process recorded, one per step."""
    result = {}
    for row in map(json.loads, (cwd / "seen.jsonl").read_text().splitlines()):
        result.setdefault(row["pid"], []).append(row)
    return list(result.values())


def at_once(cwd):
    """Return the largest number of processes that ran concurrently."""
    spans = [(rows[0]["time"], rows[-1]["time"]) for rows in seen(cwd)]
    return max(sum(start <= moment <= end for start, end in spans) for moment, _ in spans)


def statuses(directory):
    result = {path.parent.name[0]: json.loads(path.read_text())["status"] for path in directory.glob("*/status.json")}
    return [result[number] for number in sorted(result)]


def test_killed_worker_leaves_other_jobs(tmp_path, environment):
    """Jobs run concurrently in separate processes; one that is killed does not affect the others."""
    done = command("run", "-m", *TINY, "lr=1e-4,3e-4,4e-4,5e-4", cwd=tmp_path, env=environment)
    directory = tmp_path / "outputs/sweeps/s"
    assert done.returncode == 1
    assert statuses(directory) == ["completed", "failed", "completed", "completed"]
    assert "3 completed, 1 failed" in done.stderr
    assert "WorkerCrashedError" in json.loads(next(directory.glob("1-*/status.json")).read_text())["error"]
    assert len(seen(tmp_path)) == 4  # one process per job
    assert {row["threads"] for rows in seen(tmp_path) for row in rows} == {1}
    assert at_once(tmp_path) == min(len(os.sched_getaffinity(0)), 4)
    alone = command(
        "run", *(word for word in TINY if "/" not in word and "sweep" not in word), "lr=4e-4", "hydra.run.dir=alone",
        cwd=tmp_path, env={**environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    weights = "checkpoints/best/model.safetensors"
    assert (tmp_path / "alone" / weights).read_bytes() == (next(directory.glob("2-*")) / weights).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_saves_and_resumes(tmp_path, environment, number):
    """Interrupted jobs save their state, and the same command resumes them."""
    arguments = ("-m", *TINY, "epochs=12", "seed=1,2,3", "hydra.launcher.num_cpus=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    since = time.monotonic()
    while not (tmp_path / "seen.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - since < PATIENCE_S
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(number)
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], printed
    assert "interrupted" in statuses(tmp_path / "outputs/sweeps/s")
    again = command("run", *arguments, cwd=tmp_path, env=environment)
    assert again.returncode == 0, again.stderr
    for path in (tmp_path / "outputs/sweeps/s").glob("*/metrics.jsonl"):
        rows = map(json.loads, path.read_text().splitlines())
        assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 145))


def test_jobs_share_gpu_of_running_cluster(tmp_path, environment):
    """Two jobs with num_gpus=0.5 share the GPU of a running cluster."""
    head = ("start", "--head", "--block", "--port=0", "--num-cpus=4", "--num-gpus=1", "--include-dashboard=false")
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *head],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        address = next(line for line in lines if "--address" in line).split("'")[1]
        more = (f"hydra.launcher.address={address}", "hydra.launcher.num_gpus=0.5", "seed=1,2,3")
        done = command("run", "-m", *TINY, *more, cwd=tmp_path, env=environment)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert at_once(tmp_path) == 2  # four cores would allow all three
    assert {row["gpu"] for rows in seen(tmp_path) for row in rows} == {"0"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.num_gpus=64", "hydra.launcher.num_gpus=64: more than any node has; the largest has"),
        ("hydra.launcher.num_gpus=1.5", "must be a whole number if it is > 1"),
        ("hydra.launcher.num_cpus=0", "hydra.launcher.num_cpus=0: must be >= 1"),
        ("sweep.fail_fast=true", "hydra/launcher=ray does not support it"),
    ],
)
def test_invalid_ray_settings_are_refused(tmp_path, environment, override, message):
    """Invalid settings give one message and no traceback."""
    done = command("run", "-m", *TINY, "seed=1,2", override, cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
