"""A sweep directory from an untrusted source: resuming it runs nothing of it and writes nothing outside of it."""

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
    """A copy of it without the second job, beside files of the user."""
    shutil.copytree(finished, tmp_path / "sweep")
    shutil.rmtree(tmp_path / "sweep/1-seed-2")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/precious.txt").write_text("precious", "utf-8")
    return tmp_path / "sweep"


def refusal(sweep):
    """The message with which resuming is refused; the user's files are as they were."""
    done = command("run", "-m", *ARGUMENTS, cwd=sweep.parent)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in (sweep.parent / "home").iterdir()] == ["precious.txt"]
    assert (sweep.parent / "home/precious.txt").read_text("utf-8") == "precious"
    return done.stderr


def change(file, old, new):
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")


def test_hydra_settings_of_the_stored_conf_set_no_environment(sweep):
    """git would run the program, and does so while a run records the state of its checkout."""
    program = sweep.parent / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {sweep.parent}/home/canary\n")
    program.chmod(0o755)
    values = {"GIT_CONFIG_COUNT": "'1'", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": str(program)}
    inner = ", ".join(f"{key}: {value}" for key, value in values.items())
    change(sweep / ".conf/1/config.yaml", "\nhydra:\n", f"\nhydra:\n  job: {{env_set: {{{inner}}}}}\n")
    message = refusal(sweep)
    assert "hydra.job.env_set.GIT_CONFIG_COUNT: the copy has 1, conf/ has nothing" in message
    assert "changed files: sweep/.conf/1/config.yaml" in message
    assert "rm -r sweep/.conf" in message


def test_the_log_of_a_job_goes_where_conf_says(sweep):
    logs = sweep / ".conf/1/hydra/job_logging/afqmc.yaml"
    change(logs, "${hydra.runtime.output_dir}/run.log", f"{sweep.parent}/home/precious.txt\n    mode: w")
    assert "hydra.job_logging.handlers.file.filename: the copy has" in refusal(sweep)


def test_links_and_pipes_in_a_sweep_are_refused_in_one_message_before_anything_is_written(sweep):
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
def test_a_directory_that_holds_only_links_is_no_place_for_a_new_run_or_sweep(tmp_path, flags):
    (tmp_path / "home").mkdir()
    (tmp_path / "new").mkdir()
    for name in ("multirun.yaml", ".hydra", "run.log"):
        (tmp_path / "new" / name).symlink_to(tmp_path / "home")
    key = "hydra.sweep.dir" if flags else "hydra.run.dir"
    done = command("run", *flags, *SMALL, "trainer.max_steps=1", f"{key}=new", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("a link that leads out of new; remove it") == 3
    assert not list((tmp_path / "home").iterdir())
