"""Shell completion: the script that the help names, run in bash as bash would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import command

from afqmc.utils.command_help import COMMANDS


@pytest.fixture
def complete(tmp_path):
    """Return a function that returns what bash offers for a line with the cursor at its end."""
    executable = tmp_path / "bin/afqmc"
    executable.parent.mkdir()
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m afqmc "$@"\n')
    executable.chmod(0o755)

    def call(line, wordbreaks="\"'><=;|&(: "):
        script = f"""
            eval "$(afqmc run -sc install=bash)"
            COMP_WORDBREAKS="$BREAKS"
            COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
            COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            $(complete -p afqmc | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        environment = os.environ | {
            "PATH": f"{executable.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "BREAKS": wordbreaks,
        }
        result = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert not result.stderr
        return result.stdout.split()

    return call


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("afqmc run model=", {"mini", "bert-base-chinese"}),
        ("afqmc run lr=1e-5 model=mi", {"mini"}),
        ("afqmc run -m trainer.mixed", {"trainer.mixed_precision="}),
        ("afqmc doctor experiment=", {"quickstart", "tutorial"}),
        ("afqmc run opt", {"optimizer=", "optimizer."}),
    ],
)
def test_bash_offers_groups_options_and_keys(line, offered, complete):
    """Bash offers the groups, their options and the keys."""
    assert offered <= set(complete(line))


def test_bash_offers_commands(complete):
    """The first word is completed to a command."""
    assert set(complete("afqmc ")) == set(COMMANDS)
    assert complete("afqmc ev") == ["evaluate"]


def test_words_are_complete_without_break_at_equals(complete):
    """A shell that does not break words at = gets key=value."""
    assert "model=mini" in complete("afqmc run model=", wordbreaks=" ")


def test_query_by_hand_offers_everything(tmp_path):
    """A query without a line offers all keys and groups."""
    shown = command("run", "-sc", "query=bash", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert {"lr=", "model="} <= set(shown.stdout.split())


def test_completion_can_be_uninstalled(tmp_path):
    """The uninstall script removes the completion."""
    shown = command("run", "-sc", "uninstall=bash", cwd=tmp_path)
    assert "complete -r afqmc" in shown.stdout


def test_other_shells_are_rejected(tmp_path):
    """A shell without completion is rejected with the ones that have it."""
    shown = command("run", "-sc", "install=fish", cwd=tmp_path)
    assert (shown.returncode, shown.stderr.split(": ")[:2]) == (2, ["--shell-completion install=fish", "allowed"])
