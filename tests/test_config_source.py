"""Source: files of the user are not looked for in a download or in the sample."""

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
            "files of your own: dataset=jsonl dataset.train_file=a.csv dataset.dev_file=b.csv",
        ),
        (
            ["dataset.test_file=/data/test.json"],
            "for files of your own: dataset=jsonl dataset.test_file=/data/test.json",
        ),
        (["dataset.dev_file=./dev.json"], "dataset.dev_file=./dev.json: the data set is a download"),
        (["dataset.columns=[sentence1,sentence2,label]"], "dataset.columns=.*: the data set is a download"),
        (["dataset.sentence1_field=q1"], "dataset.sentence1_field=q1: the data set is a download; .* dataset=jsonl"),
        (["experiment=quickstart", "dataset.train_file=a.csv"], "dataset=sample is the embedded data, .*dataset=jsonl"),
        (["experiment=quickstart", "dataset.path=DIR"], "dataset.path=DIR: not with dataset=sample.*dataset=jsonl"),
        (
            ["dataset=sample", "dataset.label_field=same"],
            "dataset.label_field=same: dataset=sample is the embedded data",
        ),
        (["experiment=tutorial", "dataset.train_file=a.csv"], "dataset=jsonl dataset.train_file=a.csv"),
        (["dataset.url=http://h/my.zip", "dataset.train_file=~/a.csv"], "the data set is a download; for files"),
    ],
)
def test_files_of_ones_own_need_a_data_set_of_ones_own(overrides, message):
    with pytest.raises(InputError, match=message):
        compose(overrides)


@pytest.mark.parametrize("name", ["train.json", "dev.json"])
@pytest.mark.parametrize("overrides", [[], ["experiment=quickstart"]])
def test_a_local_file_with_the_name_of_one_in_the_download_is_not_mistaken_for_it(
    overrides, name, tmp_path, monkeypatch
):
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    compose(overrides)  # nobody named the file
    with pytest.raises(InputError, match=f"dataset=jsonl dataset.train_file={name}"):
        compose([*overrides, f"dataset.train_file={name}"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.path=DIR", "dataset.train_file=a.csv", "dataset.sentence1_field=q1", "dataset.format=auto"],
        ["dataset.train_file=dev.json", "dataset.test_file=null"],
        ["dataset.url=http://h/my.zip", "dataset.checksums={}", "dataset.train_file=a.csv", "dataset.label_field=same"],
        ["experiment=quickstart", "dataset=jsonl", "dataset.train_file=a.csv", "dataset.dev_file=b.csv"],
        ["dataset=jsonl", "dataset.train_file=/a.csv", "dataset.columns=[sentence1,sentence2,label]"],
        ["experiment=quickstart", "dataset.test_file=null", "dataset.dev_file=test.json"],
    ],
)  # fmt: skip
def test_what_can_apply_is_accepted(overrides):
    compose(overrides)


@pytest.mark.parametrize("more", [[], ["-m", "lr=1e-5,2e-5"]])
def test_a_run_and_a_sweep_refuse_it_before_anything_is_fetched(more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *more, "dataset.train_file=a.csv", "dataset.dev_file=b.csv"])
    assert run_command(entry.main) == 2
    told = capsys.readouterr().err
    assert "for files of your own: dataset=jsonl dataset.train_file=a.csv dataset.dev_file=b.csv" in told
    assert not list(tmp_path.glob("outputs/*/*/*/status.json"))
