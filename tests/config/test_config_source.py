"""Dataset source: the user's own files are not looked up in the download or in the sample."""

import sys

import pytest

from afqmc import run as entry
from afqmc.cli import run_command
from afqmc.config import compose
from afqmc.utils.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset.train_file=a.csv", "dataset.dev_file=b.csv"],
            "dataset.train_file=a.csv: the data set is a download, which has train.json, dev.json, test.json; for "
            "your own files: dataset=files dataset.train_file=a.csv dataset.dev_file=b.csv",
        ),
        (
            ["dataset.test_file=/data/test.json"],
            "for your own files: dataset=files dataset.test_file=/data/test.json",
        ),
        (["dataset.dev_file=./dev.json"], "dataset.dev_file=./dev.json: the data set is a download"),
        (["dataset.columns=[sentence1,sentence2,label]"], "dataset.columns=.*: the data set is a download"),
        (["dataset.sentence1_field=q1"], "dataset.sentence1_field=q1: the data set is a download; .* dataset=files"),
        (["experiment=quickstart", "dataset.train_file=a.csv"], "dataset=sample is the embedded data, .*dataset=files"),
        (["experiment=quickstart", "dataset.path=DIR"], "dataset.path=DIR: not with dataset=sample.*dataset=files"),
        (
            ["dataset=sample", "dataset.label_field=same"],
            "dataset.label_field=same: dataset=sample is the embedded data",
        ),
        (["experiment=tutorial", "dataset.train_file=a.csv"], "dataset=files dataset.train_file=a.csv"),
        (["dataset.url=http://h/my.zip", "dataset.train_file=~/a.csv"], "the data set is a download; for your own"),
    ],
)
def test_own_files_need_own_dataset(overrides, message):
    """The user's own files or columns with dataset=afqmc or dataset=sample are rejected with the right overrides."""
    with pytest.raises(InputError, match=message):
        compose(overrides)


@pytest.mark.parametrize("name", ["train.json", "dev.json"])
@pytest.mark.parametrize("overrides", [[], ["experiment=quickstart"]])
def test_local_file_named_like_downloaded(overrides, name, tmp_path, monkeypatch):
    """A local file that the user names is not mistaken for a file of the same name in the download."""
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    compose(overrides)  # the file exists, but is not named
    with pytest.raises(InputError, match=f"dataset=files dataset.train_file={name}"):
        compose([*overrides, f"dataset.train_file={name}"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.path=DIR", "dataset.train_file=a.csv", "dataset.sentence1_field=q1", "dataset.format=auto"],
        ["dataset.train_file=dev.json", "dataset.test_file=null"],
        ["dataset.url=http://h/my.zip", "dataset.checksums={}", "dataset.train_file=a.csv", "dataset.label_field=same"],
        ["experiment=quickstart", "dataset=files", "dataset.train_file=a.csv", "dataset.dev_file=b.csv"],
        ["dataset=files", "dataset.train_file=/a.csv", "dataset.columns=[sentence1,sentence2,label]"],
        ["experiment=quickstart", "dataset.test_file=null", "dataset.dev_file=test.json"],
    ],
)
def test_valid_sources_are_accepted(overrides):
    """Files and columns are accepted if the data set can have them."""
    compose(overrides)


@pytest.mark.parametrize("more", [[], ["-m", "lr=1e-5,2e-5"]])
def test_run_and_sweep_reject_before_download(more, tmp_path, monkeypatch, capsys):
    """A run and a sweep reject such files before anything is downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *more, "dataset.train_file=a.csv", "dataset.dev_file=b.csv"])
    assert run_command(entry.main) == 2
    message = capsys.readouterr().err
    assert "for your own files: dataset=files dataset.train_file=a.csv dataset.dev_file=b.csv" in message
    assert not list(tmp_path.glob("outputs/*/*/*/status.json"))
