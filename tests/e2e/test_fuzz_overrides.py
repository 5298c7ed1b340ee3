"""Any overrides at all: a config that is saved and loaded back, or one message; and a run that says how it ended."""

import json
import re

import pytest
from fuzzing import command_lines
from helpers import SMALL, command
from hypothesis import HealthCheck, given, settings

from afqmc import config as schema
from afqmc.config import Config, compose
from afqmc.utils.errors import InputError

_INNARDS = re.compile(r"Traceback|full_key|object_type|reference_type|hydra\.cc|Lexer|ListConfig|DictConfig|\[0m")


def hold_to_one_message(told):
    """A few lines that say something, and nothing of what only a developer knows."""
    assert told.strip()
    assert len(told) < 8000
    assert told.count("\n") < 12, told
    assert not _INNARDS.search(told), told


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@given(line=command_lines)
@settings(max_examples=settings.default.max_examples // 3)
def test_overrides_compose_or_are_refused_in_one_message(line, run_dir):
    try:
        config = compose(line)
    except InputError as error:
        hold_to_one_message(str(error))
        return
    assert isinstance(config, Config)
    told = json.dumps(schema.to_container(config))
    schema.save(config, run_dir / "config.yaml")
    try:
        again = schema.load(run_dir)
    except InputError as error:
        reason = str(error)
        assert "a saved config is literal" in reason
        assert "\\$" in " ".join(line)  # it holds the text ${...} itself, which is not loaded back
    else:
        assert json.dumps(schema.to_container(again)) == told  # nan is not equal to itself


def hold_to_how_it_ended(ended, directory):
    """Done, or refused in one message, or failed with a loss that is no number; complete if and only if done."""
    assert ended.returncode in (0, 2) or (ended.returncode == 1 and "NonFiniteLossError" in ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "--- Logging error ---" not in ended.stderr
    if ended.returncode:
        hold_to_one_message(ended.stderr)
    status = directory / "status.json"
    assert (directory / "summary.json").exists() == (ended.returncode == 0)
    if status.exists():
        says = json.loads(status.read_text(encoding="utf-8"))["status"]
        assert says == {0: "completed", 1: "failed", 2: "refused"}[ended.returncode]


def as_arguments(line):
    """Without flags, which are argparse's, without Hydra's own keys, and without places outside the test's own."""
    return [text for text in line if not text.startswith("-") and "hydra" not in text and "=/" not in text]


def alone(place):
    """Its own home, and no W&B."""
    return {"HOME": str(place), "WANDB_MODE": "disabled"}


in_subprocesses = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(line=command_lines)
@settings(max_examples=40, **in_subprocesses)
def test_the_command_shows_a_config_or_refuses_in_one_message(line, run_dir):
    ended = command("run", "experiment=quickstart", "--cfg", "job", *as_arguments(line), cwd=run_dir)
    assert ended.returncode in (0, 2), ended.stderr
    if ended.returncode:
        hold_to_one_message(ended.stderr)
    else:
        assert "batch_size:" in ended.stdout or any(text.startswith("~") for text in line)
    assert not (run_dir / "outputs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(line=command_lines)
@settings(max_examples=25, **in_subprocesses)
def test_a_run_is_complete_or_says_why_not(line, tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    bounds = ("trainer.max_steps=2", "trainer.eval_steps=null", "trainer.device=cpu", "hydra.run.dir=run")
    ended = command("run", *SMALL, *as_arguments(line), *bounds, cwd=place, env=alone(place))
    hold_to_how_it_ended(ended, place / "run")
