"""An untrusted sweep directory: resuming it runs no code of it, and writes nothing outside of it."""

import os
import shutil

import pytest
from helpers import SMALL, command

ARGUMENTS = (*SMALL, "epochs=1", "trainer.max_steps=1", "seed=1,2", "hydra.sweep.dir=sweep")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep of two jobs."""
    directory = tmp_path_factory.mktemp("sweeps")
    done = command("run", "-m", *ARGUMENTS, cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "sweep"


@pytest.fixture
def sweep(finished, tmp_path):
    """Copy the finished sweep without its second job, next to files of the user."""
    shutil.copytree(finished, tmp_path / "sweep")
    shutil.rmtree(tmp_path / "sweep/1-seed-2")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/precious.txt").write_text("precious", "utf-8")
    return tmp_path / "sweep"


def refusal(sweep):
    """Check that resuming the sweep is refused and the user's files are unchanged; return the message."""
    done = command("run", "-m", *ARGUMENTS, cwd=sweep.parent)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in (sweep.parent / "home").iterdir()] == ["precious.txt"]
    assert (sweep.parent / "home/precious.txt").read_text("utf-8") == "precious"
    return done.stderr


def replace_once(file, old, new):
    """Replace a text that occurs once in a file."""
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")


def test_stored_conf_cannot_set_environment(sweep):
    """The stored conf/ cannot set environment variables.

    Otherwise git would run a program named there when a run records the state of its checkout.
    """
    program = sweep.parent / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {sweep.parent}/home/canary\n")
    program.chmod(0o755)
    values = {"GIT_CONFIG_COUNT": "'1'", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": str(program)}
    inner = ", ".join(f"{key}: {value}" for key, value in values.items())
    replace_once(sweep / ".conf/1/config.yaml", "\nhydra:\n", f"\nhydra:\n  job: {{env_set: {{{inner}}}}}\n")
    message = refusal(sweep)
    assert "hydra.job.env_set.GIT_CONFIG_COUNT: the copy has 1, conf/ has nothing" in message
    assert "changed files: sweep/.conf/1/config.yaml" in message
    assert "rm -r sweep/.conf" in message


def test_stored_conf_cannot_redirect_log(sweep):
    """The stored conf/ cannot replace_once the file that a job logs to."""
    logs = sweep / ".conf/1/hydra/job_logging/afqmc.yaml"
    replace_once(logs, "${hydra.runtime.output_dir}/run.log", f"{sweep.parent}/home/precious.txt\n    mode: w")
    assert "hydra.job_logging.handlers.file.filename: the copy has" in refusal(sweep)


def test_links_and_pipes_are_refused(sweep):
    """All links and pipes are listed in one message before anything is written."""
    precious, job = sweep.parent / "home/precious.txt", sweep / "1-seed-2"
    (job / ".hydra").mkdir(parents=True)
    links = [sweep / "results.csv", sweep / "multirun.yaml", job / "run.log", job / ".hydra/config.yaml"]
    pipes = [sweep / "results.jsonl", job / ".hydra/hydra.yaml"]
    for path in (*links, *pipes):
        path.unlink(missing_ok=True)
    for path in links:
        path.symlink_to(precious)
    for path in pipes:
        os.mkfifo(path)
    (sweep / "2-seed-3").symlink_to(sweep.parent / "home")
    message = refusal(sweep)
    for path in (*links, sweep / "2-seed-3"):
        assert f"{path.relative_to(sweep.parent)}: a link that leads out of sweep; remove it" in message
    for path in pipes:
        assert f"{path.relative_to(sweep.parent)}: not a regular file (a FIFO); remove it" in message


@pytest.mark.parametrize("flags", [("-m",), ()])
def test_directory_of_links_is_refused(tmp_path, flags):
    """A directory that contains escaping links cannot be used for a new run or sweep."""
    (tmp_path / "home").mkdir()
    (tmp_path / "new").mkdir()
    for name in ("multirun.yaml", ".hydra", "run.log"):
        (tmp_path / "new" / name).symlink_to(tmp_path / "home")
    key = "hydra.sweep.dir" if flags else "hydra.run.dir"
    done = command("run", *flags, *SMALL, "trainer.max_steps=1", f"{key}=new", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("a link that leads out of new; remove it") == 3
    assert not list((tmp_path / "home").iterdir())
