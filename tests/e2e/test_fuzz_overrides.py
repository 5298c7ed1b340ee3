"""Random overrides either compose to a config that survives saving and loading, or are refused with one message."""

import json
import re

import pytest
from fuzzing import command_lines
from helpers import SMALL, command
from hypothesis import HealthCheck, given, settings

from afqmc import config as schema
from afqmc.config import Config, compose
from afqmc.utils.errors import InputError

_INTERNALS = re.compile(r"Traceback|full_key|object_type|reference_type|hydra\.cc|Lexer|ListConfig|DictConfig|\[0m")


def check_one_message(message):
    """Check that a message is short, and shows no internals of the libraries."""
    assert message.strip()
    assert len(message) < 8000
    assert message.count("\n") < 12, message
    assert not _INTERNALS.search(message), message


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@given(line=command_lines)
@settings(max_examples=settings.default.max_examples // 3)
def test_random_overrides_compose_or_are_refused(line, run_dir):
    """A composed config equals itself after saving and loading; a refusal is one message."""
    try:
        config = compose(line)
    except InputError as error:
        check_one_message(str(error))
        return
    assert isinstance(config, Config)
    content = json.dumps(schema.to_container(config))
    schema.save(config, run_dir / "config.yaml")
    try:
        loaded = schema.load(run_dir)
    except InputError as error:
        reason = str(error)
        assert "a saved config is literal" in reason
        assert "\\$" in " ".join(line)  # a value with a literal ${...} cannot be loaded
    else:
        assert json.dumps(schema.to_container(loaded)) == content  # as text, since nan is not equal to itself


def check_end(process, directory):
    """Check that a run completed, was refused with one message, or failed with a non-finite loss; only a completed run
    has summary.json.
    """
    assert process.returncode in (0, 2) or (process.returncode == 1 and "NonFiniteLossError" in process.stderr), (
        process.stderr
    )
    assert "Traceback" not in process.stderr
    assert "--- Logging error ---" not in process.stderr
    if process.returncode:
        check_one_message(process.stderr)
    status = directory / "status.json"
    assert (directory / "summary.json").exists() == (process.returncode == 0)
    if status.exists():
        recorded = json.loads(status.read_text(encoding="utf-8"))["status"]
        assert recorded == {0: "completed", 1: "failed", 2: "refused"}[process.returncode]


def as_arguments(line):
    """Remove flags, Hydra's own keys, and paths outside the directory of the test."""
    return [text for text in line if not text.startswith("-") and "hydra" not in text and "=/" not in text]


def environment_of(directory):
    """Return variables for a home directory of its own, without W&B."""
    return {"HOME": str(directory), "WANDB_MODE": "disabled"}


in_subprocesses = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(line=command_lines)
@settings(max_examples=40, **in_subprocesses)
def test_random_overrides_on_command_line(line, run_dir):
    """``--cfg job`` shows the config or refuses it with one message, and creates no directory."""
    process = command("run", "experiment=quickstart", "--cfg", "job", *as_arguments(line), cwd=run_dir)
    assert process.returncode in (0, 2), process.stderr
    if process.returncode:
        check_one_message(process.stderr)
    else:
        assert "batch_size:" in process.stdout or any(text.startswith("~") for text in line)
    assert not (run_dir / "outputs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(line=command_lines)
@settings(max_examples=25, **in_subprocesses)
def test_random_overrides_train_or_report_error(line, tmp_path_factory):
    """A run with random overrides completes, or reports why it did not."""
    directory = tmp_path_factory.mktemp("run")
    bounds = ("trainer.max_steps=2", "trainer.eval_steps=null", "trainer.device=cpu", "hydra.run.dir=run")
    process = command("run", *SMALL, *as_arguments(line), *bounds, cwd=directory, env=environment_of(directory))
    check_end(process, directory / "run")
