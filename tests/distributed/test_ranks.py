"""Rank and world size from the variables of launchers, complete or not."""

import importlib
import subprocess

import pytest
from accelerate import PartialState
from helpers import PATIENCE_S, PYTHON, small
from helpers import environment as command_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from afqmc.cli import run_command
from afqmc.distributed.rank import Rank, current_rank, export_torchrun_env, hide_from_accelerate
from afqmc.training.config import DistributedConfig
from afqmc.training.device import build_accelerator, select_device
from afqmc.utils.errors import InputError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = (
    "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURM_STEP_ID",
)  # fmt: skip
MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID")
WHOLE = dict(zip(TORCHRUN, ("1", "2", "1", "2", "localhost", "29500"), strict=True))


def read(environment):
    """Return the rank or the error."""
    try:
        export_torchrun_env(environment)
        rank = current_rank(environment)
        hide_from_accelerate(environment)
    except InputError as refused:
        return refused
    return rank


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from((*TORCHRUN, *SLURM, *MPI)),
        st.sampled_from(("", " ", "0", "1", "2", "3", "-1", "a", "1.5", "²", "9" * 30, "2(x2)", "localhost", "29500")),
    )
)
def test_any_variables(environment):
    """Any subset of variables gives a single process, a valid rank, or an error that names a variable."""
    before = dict(environment)
    rank = read(environment)
    if isinstance(rank, InputError):
        assert str(rank).partition("=")[0] in {*TORCHRUN, *SLURM, *MPI}
        return
    assert 0 <= rank.rank < rank.world_size
    assert 0 <= rank.local_rank < rank.local_world_size <= rank.world_size
    if rank.is_single:
        assert not {*TORCHRUN[:4], *MPI} & environment.keys()
        # a launcher inside a task of Slurm comes first
        assert before.get("RANK") or not environment.get("SLURM_STEP_NUM_TASKS", "").strip() > "1"
    else:
        assert all(environment[name] for name in TORCHRUN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": ""}, "RANK=1: but WORLD_SIZE is not set; torchrun sets all of them; for a run of one process"),
        ({"WORLD_SIZE": "1"}, "RANK=1: but WORLD_SIZE is 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: must be >= 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number from 0"),
        ({"RANK": "2"}, "RANK=2: must be < WORLD_SIZE=2"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1: must be a whole number from 0"),
        ({"LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK=1: must be < LOCAL_WORLD_SIZE=1"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE=3: must be <= WORLD_SIZE=2"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000: must be from 1 to 65535"),
        ({"MASTER_ADDR": "", "LOCAL_RANK": ""}, "WORLD_SIZE=2: LOCAL_RANK, MASTER_ADDR not set"),
    ],
)
def test_contradictions(changes, message):
    """The error names the contradicting variables."""
    assert current_rank(WHOLE) == Rank(1, 2, 1, 2)
    with pytest.raises(InputError) as refused:
        current_rank({**WHOLE, **changes})
    assert str(refused.value).startswith(message)


def test_incomplete_srun():
    """Incomplete variables of srun are refused."""
    with pytest.raises(InputError, match="SLURM_STEP_NUM_TASKS=2: SLURM_LOCALID, .* not set; srun sets all of them"):
        export_torchrun_env({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"})


@pytest.mark.parametrize(
    "stray",
    [{"LOCAL_RANK": "0"}, {"WORLD_SIZE": "1"}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, {"PMI_SIZE": "1"}],
)
def test_stray_variables(stray, monkeypatch):
    """Left-over variables of a single process start no process group."""
    for name, value in stray.items():
        monkeypatch.setenv(name, value)
    config = small("trainer.device=cpu").trainer
    assert build_accelerator(select_device(config), config, DistributedConfig(), 1).num_processes == 1
    assert PartialState().distributed_type.value == "NO"


@pytest.mark.parametrize("name", ["evaluate", "predict", "compare", "doctor"])
def test_single_process_commands(name, monkeypatch, capsys):
    """Commands for a single process refuse a launcher; only rank 0 prints the message."""
    main = importlib.import_module(f"afqmc.{name}").main
    for variable, value in {**WHOLE, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr("sys.argv", [name])
    assert run_command(main) == 2
    message = f"afqmc.{name}: runs as one process, and the launcher started 2; start it without a launcher\n"
    assert capsys.readouterr() == ("", message)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("afqmc.cli._RANK_0_REPORT_S", 0)
    with pytest.raises(SystemExit) as quiet:
        run_command(main)
    assert quiet.value.code == 2
    assert capsys.readouterr() == ("", "")


def test_torchrun_refusal(tmp_path):
    """Under torchrun the refusal is printed once."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    command = [PYTHON, "-m", *torchrun, PYTHON, "-m", "afqmc.predict", "RUN", "FILE"]
    variables = command_environment(OMP_NUM_THREADS="1")
    ended = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode != 0
    assert ended.stderr.count("afqmc.predict: runs as one process") == 1
    assert "terminated" not in ended.stderr
