"""A fork of the warm process does what a new interpreter does."""

import json
import signal
import subprocess
import sys

import pytest
from helpers import PATIENCE_S, PYTHON, SMALL, environment

from afqmc.run_dir import RunDir

pytestmark = pytest.mark.skipif(sys.executable == PYTHON, reason="there is no warm process here")
REPORT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "typed": sys.orig_argv[1:], "directory": os.getcwd(), "path": sys.path[0],
    "input": sys.stdin.read(), "variable": os.environ.get("WANDB_X"), "warm": "torch" in sys.modules,
    "leads": os.getpid() == os.getpgid(0) == os.getsid(0),
}), file=sys.stderr)
sys.exit(7)
"""
WAIT = """
import os, signal
if os.fork():
    print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def start(tmp_path):
    """Start ``python -m tried``, a module of some source, in the temporary directory."""
    processes = []

    def start(source, *arguments, **variables):
        (tmp_path / "tried.py").write_text(source, encoding="utf-8")
        process = subprocess.Popen(
            [PYTHON, "-m", "tried", *arguments],
            cwd=tmp_path, env=environment(**variables), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_child_gets_what_the_client_has(start, tmp_path):
    """Arguments, standard streams, directory, environment and exit code are those of the client."""
    process = start(REPORT, "a", "数据", WANDB_X="1")
    out, errors = process.communicate("pairs", timeout=PATIENCE_S)
    assert (process.returncode, out) == (7, "")
    assert json.loads(errors) == {
        "argv": ["a", "数据"], "typed": ["-m", "tried", "a", "数据"], "directory": str(tmp_path), "path": str(tmp_path),
        "input": "pairs", "variable": "1", "warm": True, "leads": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["HF_HOME", "LC_ALL", "PYTHONPATH", "TEST_UNKNOWN"])
def test_new_interpreter(name, start):
    """A variable that may be read during import gets a new interpreter."""
    process = start(REPORT, **{name: "C"})
    reported = json.loads(process.communicate(timeout=PATIENCE_S)[1])
    assert process.returncode == 7
    assert not reported["warm"]


def test_signals(start):
    """A signal reaches the child, and the client ends in the same way."""
    process = start(WAIT.replace("os.fork()", "True"))
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(PATIENCE_S) == -signal.SIGTERM


def test_group_is_killed_with_client(start):
    """The child's process group is killed when the client ends."""
    process = start(WAIT)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=PATIENCE_S)  # until no process of the group has the streams open


def test_code_and_open_files(tmp_path):
    """Code given with -c runs, and files that the client was given are open under their numbers."""
    code = "import os, sys; print(__name__, sys.argv); os.write(int(sys.argv[1]), b'written')"
    with (tmp_path / "file").open("wb") as file:
        command = [PYTHON, "-c", code, str(file.fileno())]
        done = subprocess.run(command, env=environment(), pass_fds=[file.fileno()], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"__main__ ['-c', '{command[-1]}']\n"), done.stderr
    assert (tmp_path / "file").read_bytes() == b"written"


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", None])
def test_same_bits(threads, tmp_path):
    """A run gives the same bits, and records the same environment, as one in a new interpreter."""
    variables = environment()
    variables.pop("OMP_NUM_THREADS", None)
    variables |= {"OMP_NUM_THREADS": threads} if threads else {}
    runs = []
    for name, python in (("warm", PYTHON), ("new", sys.executable)):
        (tmp_path / name).mkdir()
        command = [
            python,
            "-m",
            "afqmc.run",
            *SMALL,
            "hydra.run.dir=run",
            "batch_size=32",
            "model.config_overrides.hidden_size=128",
        ]
        subprocess.run(command, cwd=tmp_path / name, env=variables, timeout=PATIENCE_S, check=True)
        runs.append(recorded(RunDir(tmp_path / name / "run")))
    assert runs[0] == runs[1]


def recorded(run):
    """Return the weights, predictions, metrics and environment of a run, without directories and times."""
    metrics = map(json.loads, (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    del environment["directory"]
    files = ("checkpoints/best/model.safetensors", "predictions/dev.jsonl", "predictions/test.jsonl")
    return (
        [(run.path / name).read_bytes() for name in files],
        [{key: value for key, value in row.items() if key != "time" and "second" not in key} for row in metrics],
        environment,
    )
