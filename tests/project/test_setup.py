"""scripts/setup.sh creates .venv once, repeats that when something has changed, and reports errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = """#!/bin/sh
# Replaces uv, which needs a network: creates the environment, and records what it would install.
if [ "$1" = venv ]; then exec "{python}" -m venv --without-pip .venv; fi
echo "$*" >> installed.txt
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    """Return a directory, with a space in its name, that contains what the script reads."""
    directory = tmp_path / "a copy"
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(UV.format(python=sys.executable))
    uv.chmod(0o755)
    return directory


def set_up(checkout, *extras, **variables):
    environment = {
        **os.environ, "PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}",
        "TORCH": "cpu", "PYTHON": sys.executable, "FAILS": "nothing fails", **variables,
    }  # fmt: skip
    script = checkout / "scripts/setup.sh"
    return subprocess.run(["sh", script, *extras], env=environment, capture_output=True, text=True)


def installed(checkout):
    return (checkout / "installed.txt").read_text().splitlines()


def test_installs_tested_versions_once(checkout):
    """A second call installs nothing; other extras or a changed file cause an installation."""
    first = set_up(checkout)
    assert first.returncode == 0, first.stderr
    torch, project = installed(checkout)
    assert "whl/cpu torch==2." in torch
    assert project.endswith("-e .[test] -c constraints.txt")
    assert "up to date" in set_up(checkout).stdout
    assert len(installed(checkout)) == 2
    assert set_up(checkout, "dev").returncode == 0
    assert installed(checkout)[-1].endswith("-e .[dev] -c constraints.txt")
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert "up to date" not in set_up(checkout).stdout


def test_torch_selects_the_build(checkout):
    assert set_up(checkout, TORCH="cuda").returncode == 0
    assert "whl/cu130 torch==2." in installed(checkout)[0]
    refused = set_up(checkout, TORCH="gpu")
    assert refused.returncode == 1
    assert refused.stderr == "setup: TORCH=gpu: must be cpu, cuda or default\n"


def test_falls_back_to_default_index(checkout):
    """If PyTorch's index is unreachable, torch comes from the default index, with a note."""
    done = set_up(checkout, FAILS="download.pytorch.org")
    assert done.returncode == 0
    assert "usually the CUDA build" in done.stdout
    assert "-e .[test]" in installed(checkout)[-1]


def test_interrupted_setup_starts_again(checkout):
    assert set_up(checkout, FAILS="-e .[test]").returncode == 1
    assert (checkout / ".venv/.unfinished").exists()
    repeated = set_up(checkout)
    assert "removing .venv" in repeated.stdout
    assert "setup: done" in repeated.stdout
    assert not (checkout / ".venv/.unfinished").exists()


def test_users_environment_is_kept(checkout):
    """A .venv that the user created is never deleted."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    (checkout / ".venv/mine").touch()
    assert set_up(checkout, FAILS="-e .[test]").returncode == 1
    assert set_up(checkout).returncode == 0
    assert (checkout / ".venv/mine").exists()


def test_concurrent_setup_is_rejected(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.unfinished").write_text(str(os.getpid()))
    rejected = set_up(checkout)
    assert rejected.returncode == 1
    assert f"process {os.getpid()} is setting up .venv" in rejected.stderr


def test_unsupported_python_is_rejected(checkout):
    rejected = set_up(checkout, PYTHON="/bin/false")
    assert rejected.returncode == 1
    assert rejected.stderr == (
        "setup: Python 3.11, 3.12, 3.13 or 3.14 is needed (tried: /bin/false). "
        "Install one, or name it: PYTHON=/path/to/python3.13\n"
    )
    assert not (checkout / ".venv").exists()
