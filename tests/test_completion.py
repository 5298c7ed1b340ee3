"""Shell completion: the script that the help names, run in bash as bash would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import command

BIN = str(Path(sys.executable).parent)


def complete(line, cwd, wordbreaks="\"'><=;|&(: "):
    """What bash offers for a line, the cursor at its end."""
    script = f"""
        eval "$(python -m afqmc.run -sc install=bash)"
        COMP_WORDBREAKS="$BREAKS"
        COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $(complete -p python | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[1]), "BREAKS": wordbreaks}
    environment = {**os.environ, **ours}
    done = subprocess.run(["bash", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python -m afqmc.run model=", {"mini", "bert-base-chinese"}),
        ("python -m afqmc.run lr=1e-5 model=mi", {"mini"}),
        ("python -m afqmc.run -m trainer.mixed", {"trainer.mixed_precision="}),
        ("python -m afqmc.doctor experiment=", {"quickstart", "tutorial"}),
        ("python -m afqmc.run opt", {"optimizer=", "optimizer."}),
    ],
)
def test_bash_offers_groups_options_and_keys(line, offered, tmp_path):
    assert offered <= set(complete(line, tmp_path))


def test_a_shell_that_does_not_break_words_at_equals_gets_whole_words(tmp_path):
    assert "model=mini" in complete("python -m afqmc.run model=", tmp_path, wordbreaks=" ")


def test_other_python_commands_are_left_to_bash(tmp_path):
    assert complete("python -m http.server", tmp_path) == []


def test_a_query_typed_by_hand_offers_everything(tmp_path):
    shown = command("run", "-sc", "query=bash", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert {"lr=", "model="} <= set(shown.stdout.split())


def test_what_was_installed_can_be_taken_away(tmp_path):
    shown = command("run", "-sc", "uninstall=bash", cwd=tmp_path)
    assert "complete -r python" in shown.stdout


def test_another_shell_is_refused(tmp_path):
    told = command("run", "-sc", "install=fish", cwd=tmp_path)
    assert (told.returncode, told.stderr.split(": ")[:2]) == (2, ["--shell-completion install=fish", "legal"])
