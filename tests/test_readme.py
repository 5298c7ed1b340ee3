"""The README: each command runs, or composes where it needs the network or hours; both languages say the same."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import command
from hydra.core.override_parser.overrides_parser import OverridesParser

from afqmc.config import compose
from afqmc.data.sample import sample_files
from hydra_plugins.afqmc_sweeps._override_grammar import parse_dimension

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")}
SHORT = (
    "tracker=none", "trainer.max_steps=2", "dataset.max_train_samples=64", "dataset.max_dev_samples=64",
    "dataset.max_test_samples=16", "dataset.max_length=64",
)  # fmt: skip


def blocks(text, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == language]


def commands(text):
    """Every line of the bash blocks, continued lines joined, comments and spaces left out."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split("#")[0].split()).replace("镜像", "MIRROR") for line in lines]


COMMANDS = commands(TEXTS["README.md"])


def arguments(line, name):
    """The words after ``python -m afqmc.NAME``."""
    return shlex.split(line.partition(f"python -m afqmc.{name}")[2])


def test_both_languages_have_the_same_commands_code_and_keys():
    english, chinese = TEXTS.values()
    assert commands(english) == commands(chinese)
    assert blocks(english, "python") == blocks(chinese, "python")
    assert blocks(english, "") == blocks(chinese, "")  # what is printed
    for one, other in zip(*(re.findall(r"^\|.*", text, re.MULTILINE) for text in (english, chinese)), strict=True):
        assert re.findall(r"`[^`]+`", one) == re.findall(r"`[^`]+`", other)
    assert set(re.findall(r"`[\w.]+=[^`]*`", english)) == set(re.findall(r"`[\w.]+=[^`]*`", chinese))


def test_no_command_is_left_out():
    kinds = ("python3.11 -m venv", "python -m pytest", "python -m afqmc.")
    assert len(COMMANDS) == 39
    assert all(any(kind in line for kind in kinds) for line in COMMANDS)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "afqmc.run" in line])
def test_each_run_composes(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for of_a_job in jobs_of(arguments(line, "run")):
        assert compose(of_a_job)


def jobs_of(given):
    """The command line of a run; of a sweep, those of its first and its last job."""
    overrides = OverridesParser.create().parse_overrides([argument for argument in given if argument != "-m"])
    ends = ([], [])
    for override in overrides:
        values = (
            [override.get_value_element_as_str()]
            if not override.is_sweep_override()
            else parse_dimension(override).bounds()
        )
        for job, value in zip(ends, (values[0], values[-1]), strict=True):
            job.append(f"{override.get_key_element()}={value}")
    return ends if "-m" in given else [given]


def test_the_continuous_check_calls_the_two_commands():
    checked = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert {"make quickstart", "make test"} <= set(checked)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with the data that the commands name, and RUN_DIR of the quickstart cut short."""
    home = tmp_path_factory.mktemp("home")
    (home / "DIR").mkdir()
    for name, content in sample_files().items():
        (home / "DIR" / name).write_bytes(content)
    (home / "test.json").write_bytes(sample_files()["test.json"])
    (home / "FILE").write_bytes(sample_files()["dev.json"])
    for name in ("train.csv", "dev.csv"):
        with (home / name).open("w", encoding="utf-8", newline="") as file:
            rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:40]]
            table = [(row["sentence1"], row["sentence2"], ["no", "yes"][int(row["label"])]) for row in rows]
            csv.writer(file).writerows([("question1", "question2", "same"), *table])
    line = next(line for line in COMMANDS if line.endswith("experiment=quickstart"))
    short = ("tracker=none", "trainer.max_steps=2", "hydra.run.dir=RUN_DIR")
    done = command("run", *arguments(line, "run"), *short, cwd=home)
    assert done.returncode == 0, done.stderr
    for number, seed in enumerate(("seed: 42", "seed: 43")):
        shutil.copytree(home / "RUN_DIR", home / f"SWEEP_DIR/{number}")
        config = home / f"SWEEP_DIR/{number}/config.yaml"
        config.write_text(config.read_text(encoding="utf-8").replace("seed: 42", seed), encoding="utf-8")
    (home / "printed").write_text(done.stdout, encoding="utf-8")
    return home


def test_the_quickstart_prints_what_the_readme_shows(home):
    shown = next(block for block in blocks(TEXTS["README.md"], "") if block.startswith("device: "))
    printed = (home / "printed").read_text(encoding="utf-8")
    for line in shown.splitlines():
        if line.startswith(("data: ", "model: ")):
            assert line in printed
    of_table = [re.findall(r"^│ ([a-z0-9 ]+?) +│", text, re.MULTILINE) for text in (shown, printed)]
    assert len(of_table[0]) > 5
    assert set(of_table[0]) <= set(of_table[1])


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS if re.search("model=mini|dataset=files", line)])
def test_what_needs_no_network_trains(line, home, tmp_path):
    own = [] if "model=mini" in line else ["model=mini"]
    done = command("run", *arguments(line, "run"), *own, *SHORT, f"hydra.run.dir={tmp_path}/run", cwd=home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/summary.json").exists()


@pytest.mark.parametrize("line", [line for line in COMMANDS if re.search(r"afqmc\.(evaluate|predict|compare)", line)])
def test_each_command_after_a_run_works(line, home):
    name = next(name for name in ("evaluate", "predict", "compare") if f"afqmc.{name}" in line)
    done = command(name, *arguments(line, name), cwd=home, env={"WANDB_MODE": "offline"})
    assert done.returncode == 0, done.stderr
    if name == "predict" and "-o" in arguments(line, name):
        out = arguments(line, name)[arguments(line, name).index("-o") + 1]
        assert (home / out).stat().st_size > 0


@pytest.mark.parametrize("shown", ["--cfg job", "--help"])
def test_what_shows_keys_and_groups_shows_them(shown, tmp_path):
    assert shown in TEXTS["README.md"]
    done = command("run", *shown.split(), cwd=tmp_path)
    assert done.returncode == 0
    assert "mixed_precision" in done.stdout or "experiment" in done.stdout


def test_the_python_example_gives_logits(home):
    (example,) = blocks(TEXTS["README.md"], "python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example + "\nprint(tuple(logits.shape))"],
        cwd=home, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 2)"
