"""Files of a run directory are opened in one module, which refuses FIFOs, devices and oversized files."""

import ast
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import PATIENCE_S, PYTHON, environment

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import check_regular, open_regular, read_bytes

ROOT = Path(__file__).parents[2]
READERS = {"open", "read_text", "read_bytes"}
OPENING = {  # modules that open other files, and which
    "afqmc/comparison/html/page.py": "parts of the page, from this package",
    "afqmc/config/yaml_checks.py": "the user's own conf/",
    "afqmc/runner/worker.py": "appends to the log of a rank",
    "afqmc/models/files.py": "files of a model, checked before",
    "afqmc/utils/process.py": "/proc and control groups",
    "afqmc/diagnostics/machine.py": "/proc/meminfo",
    "afqmc/training/device.py": "/proc/cpuinfo",
    "afqmc/run_dir.py": "appends to metrics.jsonl",
    "afqmc/utils/language.py": "the texts in the package",
    "afqmc/utils/files.py": "writes a file before it replaces another",
    "afqmc/inference/run_files.py": "standard input and pipes that the user names",
    "afqmc/inference/holdout.py": "none: it calls a method of its ledger",
    "afqmc/inference/streaming.py": "the file of pairs that the user names, and its own unfinished output",
    "afqmc/inference/serving/pages.py": "parts of the page, from this package",
    "afqmc/serve.py": "the token file that the user names",
    "afqmc/sweeps/journal.py": "the journal, checked before, to cut its last record",
}  # fmt: skip


def opens(path):
    """Yield the lines on which a module opens a file itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id == "open":
                yield node.lineno
            elif isinstance(called, ast.Attribute) and called.attr in READERS:
                owner = called.value.id if isinstance(called.value, ast.Name) else ""
                is_file = owner not in ("os", "stack") and not owner[:1].isupper()  # not a descriptor or class
                if is_file:
                    yield node.lineno


def test_one_module_opens_run_files():
    """Only the listed modules open files themselves."""
    modules = [*(ROOT / "afqmc").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    names = {str(path.relative_to(ROOT)): path for path in modules}
    opening = {name for name, path in names.items() if not name.startswith("afqmc/data/") and list(opens(path))}
    assert opening == set(OPENING)  # afqmc/data reads the files that the user names


@pytest.fixture
def odd(tmp_path):
    """A FIFO, a link to a device, a directory."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["fifo", "device", "directory"])
@pytest.mark.parametrize("read", [open_regular, check_regular, lambda path: read_bytes(path, 10)])
def test_not_regular(odd, name, read):
    """A FIFO, device or directory is refused without blocking."""
    with pytest.raises(InputError, match="not a regular file"):
        read(odd / name)


PARTS = ["config.yaml", "summary.json", "checkpoints/best/model.safetensors", "checkpoints/best/config.json"]


@pytest.mark.parametrize("part", PARTS)
def test_commands_refuse_fifo(small_run, part, tmp_path):
    """No command blocks on a FIFO in a run directory."""
    shutil.copytree(small_run.path, tmp_path / "run")
    (tmp_path / "run" / part).unlink()
    os.mkfifo(tmp_path / "run" / part)
    for command in (["evaluate", "run"], ["compare", "run"], ["run", "resume=run", "epochs=3"]):
        process = subprocess.Popen(
            [PYTHON, "-m", f"afqmc.{command[0]}", *command[1:]], cwd=tmp_path, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        try:
            _, error = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if command[0] != "compare" and part != "summary.json":
            assert (process.returncode, b"not a regular file" in error) == (2, True), (command, error)
