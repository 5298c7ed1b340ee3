"""The doctor: would the run go through, and what do the data hold."""

import json
import re
import sys

import pytest
from helpers import SMALL

from afqmc import doctor
from afqmc.cli import exit_code
from afqmc.dataset.sample import sample_files


@pytest.fixture
def ask(monkeypatch, capsys, tmp_path):
    """The exit code, and the findings as (section, verdict, text)."""

    def call(*overrides):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", *overrides])
        code = exit_code(doctor.main)
        answer = json.loads(capsys.readouterr().out)
        assert answer["passed"] == (code == 0)
        return code, [(f["section"], f["verdict"], f["text"]) for f in answer["findings"]]

    return call


def test_the_quickstart_would_go_through(ask):
    code, findings = ask("experiment=quickstart", "tracker=none")
    assert code == 0
    assert {section for section, _, _ in findings} == {
        "config", "data", "model", "tokens", "device", "tracker", "disk"
    }  # fmt: skip
    assert not [text for _, verdict, text in findings if verdict == "fail"]
    told = "\n".join(text for _, _, text in findings)
    for fact in ("train: 8000 pairs", "scores 69.00%", "cannot be told apart", "tokens a pair", "GiB free"):
        assert fact in told


def test_odd_rows_repeats_contradictions_and_leaks_are_found(ask, tmp_path):
    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:30]]
    swapped = {**rows[0], "sentence1": rows[0]["sentence2"], "sentence2": rows[0]["sentence1"]}
    torn = {**rows[1], "label": "1" if rows[1]["label"] == "0" else "0"}
    bad = {**rows[2], "sentence1": ""}
    train = [*rows, rows[3], swapped, torn, bad]
    for name, content in (("train.jsonl", train), ("dev.jsonl", [*rows[4:10], rows[11]])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    own = ("dataset=jsonl", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "model=mini")
    code, findings = ask(*own, "tracker=none")
    assert code == 1
    found = {text: verdict for _, verdict, text in findings}
    assert found["train.jsonl:34: 'sentence1' is empty"] == "fail"
    assert found["train: 2 repeated pairs (rows 31, 33)"] == "warn"
    assert found["train: 1 pairs repeated with the sentences swapped (rows 32)"] == "warn"
    assert found["train: 1 pairs with contradictory labels (rows 2, 33)"] == "warn"
    assert found["train and dev share 7 pairs"] == "warn"


def test_every_complaint_is_made_not_only_the_first(ask, tmp_path):
    (tmp_path / "empty").mkdir()
    code, findings = ask(
        "dataset.path=nowhere",
        "model.name_or_path=empty",
        "optimizer.weight_decay=-1",
        "trainer.device=cuda",
        "tracker=none",
    )
    assert code == 1
    assert {section for section, verdict, _ in findings if verdict == "fail"} == {"config", "data", "model", "device"}


def test_pairs_that_are_cut_are_counted(ask):
    _, findings = ask("experiment=quickstart", "dataset.max_length=16", "tracker=none")
    told = [(verdict, text) for section, verdict, text in findings if section == "tokens"]
    assert told[0][0] == "warn"
    assert "cut at dataset.max_length=16" in told[0][1]


def test_a_run_too_large_for_memory_is_found(ask):
    huge = ("hidden_size=16384", "num_hidden_layers=96", "intermediate_size=65536", "num_attention_heads=128")
    code, findings = ask("dataset=sample", "model=mini", *(f"model.architecture.{s}" for s in huge), "tracker=none")
    assert code == 1
    assert any("GiB needed for weights" in text for _, verdict, text in findings if verdict == "fail")


def test_wrong_overrides_are_refused_as_by_the_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "lrr=1"])
    assert exit_code(doctor.main) == 2
    assert "did you mean 'lr'?" in capsys.readouterr().err


def test_the_report_for_people_ends_with_a_verdict(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", *SMALL])
    assert exit_code(doctor.main) == 0
    assert capsys.readouterr().out.strip().endswith("this run would go through: 0 failed, 0 warnings")


def test_options_of_a_directory_of_ones_own_are_found_as_by_the_run(ask, tmp_path):
    (tmp_path / "my conf" / "model").mkdir(parents=True)
    (tmp_path / "my conf" / "model" / "tiny.yaml").write_text("defaults: [mini]\nvocab_size: 200\n")
    code, findings = ask("experiment=quickstart", "--config-dir", "my conf", "model=tiny", "tracker=none")
    assert code == 0
    assert any(re.search(r"vocabulary of (1..|200)$", text) for _, _, text in findings)


def test_a_config_directory_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--config-dir", "nowhere"])
    assert exit_code(doctor.main) == 2
    assert capsys.readouterr().err.strip() == "--config-dir nowhere: no such directory"
