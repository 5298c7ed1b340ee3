"""YAML files of the user: errors are reported with file, line, key and fix, before Hydra reads the file."""

import sys

import pytest

from afqmc import run as entry
from afqmc.cli import run_command
from afqmc.config import compose
from afqmc.utils.errors import InputError

HEAD = "# @package _global_\n"


@pytest.fixture
def experiment(tmp_path):
    """Return a function that composes an experiment of the given content from a config directory of the user."""

    def compose_file(content, group="experiment"):
        (tmp_path / group).mkdir(exist_ok=True)
        path = tmp_path / group / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return compose([f"{group}=mine"], tmp_path)

    return compose_file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: 1e-3\n", "mine.yaml:1: the first line must be `# @package _global_`"),
        ("# a comment\n# @package _global_\nlr: 1e-3\n", "mine.yaml:1: the first line must be"),
        ("# @package: _global_\nlr: 1e-3\n", "mine.yaml:1: the first line must be"),
        ("# @package global\nlr: 1e-3\n", "mine.yaml:1: the first line must be"),
        ("", "mine.yaml:1: the first line must be"),
        (
            f"{HEAD}dataset:\n  labels: [no, yes]\n",
            'mine.yaml:3: dataset.labels: YAML reads no .* as false; write "no"',
        ),
        (f"{HEAD}dataset:\n  labels: [010, 011]\n", 'YAML reads 010 without quotes as 8; write "010"'),
        (f"{HEAD}dataset:\n  labels: [1.50, 2]\n", 'YAML reads 1.50 without quotes as 1.5; write "1.50"'),
        (f"{HEAD}dataset:\n  labels: [12:30, 2]\n", 'YAML reads 12:30 without quotes as 750; write "12:30"'),
        (f"{HEAD}dataset:\n  labels: [null, x]\n", 'YAML reads null without quotes as null; write "null"'),
        (f"{HEAD}dataset:\n  drop_labels: [off]\n", 'dataset.drop_labels: YAML reads off .* as false; write "off"'),
        (f"{HEAD}dataset:\n  label_field: on\n", 'dataset.label_field: YAML reads on .* as true; write "on"'),
        (f"{HEAD}trainer:\n  mixed_precision: no\n", 'trainer.mixed_precision: YAML reads no .* write "no"'),
        (f"{HEAD}seed: 010\n", "mine.yaml:2: seed: YAML reads 010 without quotes as 8; write it as a decimal"),
        (f"{HEAD}trainer:\n  max_steps: 1e3\n", "mine.yaml:3: trainer.max_steps: 1e3: must be a whole number"),
        (f"{HEAD}lr: fast\n", "mine.yaml:2: lr: fast: must be a number"),
        (f"{HEAD}lr:\n", "mine.yaml:2: lr: empty: must be a number"),
        (f"{HEAD}lrr: 1\n", "mine.yaml:2: lrr: no such key; did you mean 'lr'"),
        (f"{HEAD}trainer:\n  lr: 1\n", "mine.yaml:3: trainer.lr: no such key; did you mean 'lr'"),
        (f"{HEAD}learning_rate: 1\n", "mine.yaml:2: learning_rate: no such key; did you mean 'lr'"),
        (
            f"{HEAD}dataset.max_length: 64\n",
            "mine.yaml:2: dataset.max_length: a dot .* write max_length below dataset:",
        ),
        (f"{HEAD}trainer:\nlr: 1\n", "mine.yaml:2: trainer: must hold keys"),
        (f"{HEAD}model: mini\n", "mine.yaml:2: model: mini: write `- override /model: mini` in defaults"),
        (f"{HEAD}dataset:\n\tmax_length: 9\n", "mine.yaml:3: a tab; YAML is indented with spaces"),
        (f"{HEAD}lr: [1\n", "mine.yaml:3: not valid YAML"),
        (f"{HEAD}lr: 1\nlr: 2\n", "mine.yaml:3: lr: duplicate; it is in line 2 too"),
        (f"{HEAD}? [a]\n: 1\n", "mine.yaml:2: a key must be a name"),
        (f"{HEAD}- a\n", "mine.yaml:2: must be a mapping"),
        (f"\ufeff{HEAD}lr: 1\n", "mine.yaml:1: begins with a byte order mark"),
        (HEAD.encode() + b"# \xd6\xd0\n", "mine.yaml: not UTF-8"),
        (f"{HEAD}defaults:\n  - override model: mini\n", "mine.yaml:3: override model: .* `- override /model: mini`"),
        (f"{HEAD}defaults:\n  - model: mini\n", "mine.yaml:3: model: mini: .* `- override /model: mini`"),
        (f"{HEAD}defaults:\n  - /model: mini\n", "mine.yaml:3: /model: mini: .* `- override /model: mini`"),
        (
            f"{HEAD}defaults:\n  - override /modell: mini\n",
            "mine.yaml:3: override /modell: no such group; did you mean",
        ),
        (f"{HEAD}defaults:\n  - override /model mini\n", "mine.yaml:3: override /model mini: needs a colon"),
        (f"{HEAD}defaults:\n  - 'override /model: mini'\n", "mine.yaml:3: override /model: mini: .* no quotes"),
        (f"{HEAD}defaults:\n  override /model: mini\n", "mine.yaml:3: defaults must be a list"),
        (f"{HEAD}defaults:\n  - override /model: [mini, rbt3]\n", "mine.yaml:3: .*: one option is needed, found 2"),
        (f"{HEAD}defaults:\n  - override /model: nope\n", "model=nope: no such model"),
        (f"{HEAD}lr: ${{nope}}\n", "lr: Interpolation key 'nope' not found"),
        (f"{HEAD}hydra:\n  run:\n    dirr: x\n", "experiment/mine.yaml: .*key hydra.run.dirr"),
    ],
)
def test_invalid_experiment_file(experiment, content, message):
    """Each error in an experiment file is reported with its line and how to fix it."""
    with pytest.raises(InputError, match=message):
        experiment(content)


@pytest.mark.parametrize(
    "content",
    [
        f"{HEAD}defaults:\n  - override /model: mini\n  - _self_\nlr: 1e-3\ndataset:\n  labels: ['no', 'yes']\n",
        f"{HEAD}lr: 1e-3\ndataset:\n  labels: [false, true]\ntrainer:\n  patience: null\n  mixed_precision: 'no'\n",
        f"{HEAD}lr: ${{oc.decode:'1e-3'}}\noptimizer:\n  eps: 1e-7\ndataset:\n  labels: [0, 1]\n  drop_labels: [-]\n",
        "#@package _global_\nlr: 1.0e-3\nperformance:\n  padding_free: on\n",
    ],
)
def test_valid_experiment_file(experiment, content):
    """Valid experiment files are accepted."""
    assert experiment(content).lr == 1e-3


def test_group_file_needs_no_header(experiment):
    """A file of a group needs no package header, and its keys are checked in the group."""
    assert experiment("source: files\ntrain_file: a\nlabels: ['no', 'yes']\n", "dataset").dataset.labels == [
        "no",
        "yes",
    ]
    with pytest.raises(InputError, match=r"dataset/mine.yaml:1: dataset.trainfile: no such key; did you mean 'train_"):
        experiment("trainfile: a\n", "dataset")


def test_files_in_defaults_are_checked(experiment, tmp_path):
    """Files that the defaults of another file name are checked too."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "own.yaml").write_text("source: files\nlabels: [no, yes]\n")
    with pytest.raises(InputError, match=r"dataset/own.yaml:2: dataset.labels: YAML reads no"):
        experiment(f"{HEAD}defaults:\n  - override /dataset: own\n")


def test_run_reports_invalid_file(experiment, tmp_path, monkeypatch, capsys):
    """The run command reports an invalid file with exit code 2."""
    with pytest.raises(InputError):
        experiment("lr: 1e-3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.run", "--config-dir", str(tmp_path), "experiment=mine"])
    assert run_command(entry.main) == 2
    assert "mine.yaml:1: the first line must be `# @package _global_`" in capsys.readouterr().err
