"""``accelerate launch``: real runs, and its options that are refused. For srun see test_slurm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL, command

from afqmc.distributed.rank import check_flags, current_rank
from afqmc.run_dir import RunDir
from afqmc.training.process_checks import check_launcher
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]


def accelerate_launch(directory, *options):
    """Run ``accelerate launch`` without the user's accelerate config."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HOME": str(directory / "home")}
    command = (*options, "-m", "afqmc.run", *SMALL, f"hydra.run.dir={directory / 'run'}")
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *command],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_accelerate_launch(tmp_path):
    """``accelerate launch`` starts one run with two processes, also without a GPU."""
    done = accelerate_launch(tmp_path, "--multi_gpu", "--num_processes", "2")
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert output.count("processes: 2, ddp; a batch of 8 pairs is 2 processes x 4 pairs") == 1
    assert RunDir(tmp_path / "run").read_status()["status"] == "completed"
    assert "rank 1 of 2" in (tmp_path / "run/logs/rank-1.log").read_text("utf-8")


@pytest.mark.slow
def test_accelerate_launch_cpu(tmp_path):
    """``accelerate launch --cpu`` starts one process, which the log reports."""
    done = accelerate_launch(tmp_path, "--cpu", "--num_processes", "2")
    assert done.returncode == 0, done.stderr
    assert "one process: accelerate launch --cpu starts no more" in done.stdout + done.stderr
    rows = (tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()
    assert [row["step"] for row in map(json.loads, rows) if "train/loss" in row] == list(range(1, 25))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"USE_FSDP": "true"}, "--use_fsdp: use distributed.strategy=fsdp"),
        ({"USE_DEEPSPEED": "true"}, "--use_deepspeed: not supported"),
        ({"DYNAMO_BACKEND": "INDUCTOR"}, "--dynamo_backend=inductor: use performance.torch_compile=default"),
        ({"GRADIENT_ACCUMULATION_STEPS": "4"}, "use trainer.gradient_accumulation_steps=4"),
        ({"MIXED_PRECISION": "fp16"}, "--mixed_precision=fp16: the config has bf16; use trainer.mixed_precision=fp16"),
        ({"USE_CPU": "True"}, "--cpu: use trainer.device=cpu"),
    ],
)
def test_accelerate_options_are_refused(environment, message):
    """Options of ``accelerate launch`` that our config has are refused, naming the key."""
    with pytest.raises(InputError) as refused:
        check_launcher("cuda", "bf16", {f"ACCELERATE_{name}": value for name, value in environment.items()})
    assert message in str(refused.value)


def test_accelerate_defaults():
    """The default options of ``accelerate launch`` are accepted."""
    defaults = {"MIXED_PRECISION": "no", "DYNAMO_BACKEND": "NO", "USE_CPU": "False", "GRADIENT_ACCUMULATION_STEPS": "1"}
    check_launcher("cuda", "bf16", {f"ACCELERATE_{name}": value for name, value in defaults.items()})


@pytest.mark.parametrize(
    "name", ["USE_CPU", "USE_FSDP", "USE_DEEPSPEED", "USE_MEGATRON_LM", "ENABLE_RICH", "DEBUG_MODE"]
)
@pytest.mark.parametrize("value", ["maybe", "", "2"])
def test_invalid_boolean(name, value):
    """An invalid boolean variable is refused with the allowed values."""
    with pytest.raises(
        InputError, match=f"ACCELERATE_{name}={value}: allowed: 1, true, yes, .*unset ACCELERATE_{name}"
    ):
        check_flags({f"ACCELERATE_{name}": value})
    check_flags({f"ACCELERATE_{name}": "True", f"ACCELERATE_{name}_X": "n"})


def test_invalid_precision():
    """An invalid precision is refused with the allowed ones by commands that train."""
    environment = {"ACCELERATE_MIXED_PRECISION": "bogus"}
    with pytest.raises(InputError, match=r"ACCELERATE_MIXED_PRECISION=bogus: allowed: no, bf16, fp16; .*unset"):
        check_launcher("cpu", "no", environment)
    check_launcher("cpu", None, environment)
    with pytest.raises(InputError, match="ACCELERATE_GRADIENT_ACCUMULATION_STEPS=many: must be a whole number"):
        check_launcher("cpu", None, {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "many"})


def test_predict_checks_relevant_variables(small_run, tmp_path):
    """predict refuses only the invalid variables that affect it."""
    ask = ("predict", str(small_run.path), "--pair", "a", "b")
    done = command(*ask, cwd=tmp_path, env={"ACCELERATE_MIXED_PRECISION": "bogus"})
    assert done.returncode == 0, done.stderr
    for name in ("USE_CPU", "USE_MEGATRON_LM"):  # the second is read when Accelerate is imported
        done = command(*ask, cwd=tmp_path, env={f"ACCELERATE_{name}": "maybe"})
        assert done.returncode == 2
        assert done.stderr.startswith(f"ACCELERATE_{name}=maybe: allowed: 1, true, yes")


def test_mpirun():
    """Processes of mpirun are refused."""
    with pytest.raises(InputError, match="OMPI_COMM_WORLD_SIZE=2: mpirun is not supported; use torchrun or srun"):
        current_rank({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"})
    assert current_rank({"PMI_SIZE": "1"}).is_single
