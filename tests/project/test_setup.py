"""scripts/setup.sh makes .venv once, repeats it when something changed, and says what is wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = """#!/bin/sh
# Stands for uv, which needs a network: makes the environment, and writes down what it would install.
if [ "$1" = venv ]; then exec "{python}" -m venv --without-pip .venv; fi
echo "$*" >> installed.txt
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A directory, with a space in its name, that has what the script reads."""
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


def test_it_installs_the_tested_versions_and_repeats_nothing(checkout):
    """A second call installs nothing; a third one with other extras, or after a change, does."""
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


def test_without_the_index_of_pytorch_it_takes_the_build_of_the_package_index(checkout):
    done = set_up(checkout, FAILS="download.pytorch.org")
    assert done.returncode == 0
    assert "usually the CUDA build" in done.stdout
    assert "-e .[test]" in installed(checkout)[-1]


def test_an_interrupted_set_up_is_made_anew(checkout):
    assert set_up(checkout, FAILS="-e .[test]").returncode == 1
    assert (checkout / ".venv/.unfinished").exists()
    repeated = set_up(checkout)
    assert "removing .venv" in repeated.stdout
    assert "setup: done" in repeated.stdout
    assert not (checkout / ".venv/.unfinished").exists()


def test_an_environment_that_the_user_made_is_kept(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    (checkout / ".venv/mine").touch()
    assert set_up(checkout, FAILS="-e .[test]").returncode == 1
    assert set_up(checkout).returncode == 0
    assert (checkout / ".venv/mine").exists()


def test_two_set_ups_at_once_are_rejected(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.unfinished").write_text(str(os.getpid()))
    rejected = set_up(checkout)
    assert rejected.returncode == 1
    assert f"process {os.getpid()} is setting up .venv" in rejected.stderr


def test_an_unsuitable_python_is_rejected_with_one_message(checkout):
    rejected = set_up(checkout, PYTHON="/bin/false")
    assert rejected.returncode == 1
    assert rejected.stderr == (
        "setup: Python 3.11, 3.12, 3.13 or 3.14 is needed (tried: /bin/false). "
        "Install one, or name it: PYTHON=/path/to/python3.13\n"
    )
    assert not (checkout / ".venv").exists()
