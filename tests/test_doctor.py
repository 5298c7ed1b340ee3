"""The doctor: would the run go through, and what do the data hold."""

import json
import re
import shutil
import sys

import pytest
import torch
from helpers import SMALL, command
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from afqmc import doctor
from afqmc.cli import run_command
from afqmc.data.loading import PairStream
from afqmc.data.quality import analyze
from afqmc.data.sample import PAIRS, sample_files
from afqmc.models.wordpiece import train_wordpiece


@pytest.fixture
def ask(monkeypatch, capsys, tmp_path):
    """The exit code, and the findings as (section, verdict, text)."""

    def call(*overrides):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", *overrides])
        code = run_command(doctor.main)
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
    for fact in (
        f"train: {PAIRS['train']} pairs",
        "scores 69.00%",
        "not distinguishable",
        "tokens per pair",
        "GiB free",
    ):
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
    assert found["train: 2 repeated pairs (lines 31, 33 of train.jsonl)"] == "warn"
    assert found["train: 1 pairs repeated with the sentences swapped (line 32 of train.jsonl)"] == "warn"
    assert found["train: 1 pairs with contradictory labels (lines 2, 33 of train.jsonl)"] == "warn"
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
    assert run_command(doctor.main) == 2
    assert "did you mean 'lr'?" in capsys.readouterr().err


def test_the_report_for_people_ends_with_a_verdict(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", *SMALL])
    assert run_command(doctor.main) == 0
    assert capsys.readouterr().out.strip().endswith("this run would go through: 0 failed, 0 warnings")


def test_options_of_a_directory_of_ones_own_are_found_as_by_the_run(ask, tmp_path):
    (tmp_path / "my conf" / "model").mkdir(parents=True)
    (tmp_path / "my conf" / "model" / "tiny.yaml").write_text("defaults: [mini]\nvocab_size: 200\n")
    code, findings = ask("experiment=quickstart", "--config-dir", "my conf", "model=tiny", "tracker=none")
    assert code == 0
    assert any(re.search(r"vocabulary of (1..|200)$", text) for _, _, text in findings)


def test_a_config_directory_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--config-dir", "nowhere"])
    assert run_command(doctor.main) == 2
    assert capsys.readouterr().err.strip() == "--config-dir nowhere: no such directory"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A directory of a small BERT's weights, config and tokenizer."""
    directory = tmp_path_factory.mktemp("weights") / "bert"
    tokenizer = train_wordpiece(["花呗怎么还款", "借呗额度"] * 3, 100)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def cut_short(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def claim(**changes):
    def change(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def as_bin(directory):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_short, "no usable weights in this directory"),
        (claim(hidden_size=16), "tensors have another shape, such as"),
        (claim(num_hidden_layers=3), "16 tensors are missing, such as encoder.layer.2"),
        (lambda directory: (as_bin(directory), claim(num_hidden_layers=3)(directory)), "16 tensors are missing"),
    ],
)
def test_weights_that_the_run_would_refuse_are_found(weights, damage, told, ask, tmp_path):
    shutil.copytree(weights, tmp_path / "mine")
    damage(tmp_path / "mine")
    code, findings = ask("dataset=sample", "model.name_or_path=mine", "tracker=none")
    assert code == 1
    assert [section for section, verdict, text in findings if verdict == "fail" and told in text] == ["model"]
    told_to_run = command("run", "dataset=sample", "model.name_or_path=mine", "tracker=none", cwd=tmp_path)
    assert told_to_run.returncode == 2
    assert told in told_to_run.stderr


@pytest.mark.parametrize("change", [lambda directory: None, as_bin])
def test_whole_weights_pass(weights, change, ask, tmp_path):
    shutil.copytree(weights, tmp_path / "mine")
    change(tmp_path / "mine")
    code, findings = ask("dataset=sample", "model.name_or_path=mine", "tracker=none")
    assert code == 0
    assert ("model", "ok", "weights found; they fit the architecture") in findings


def test_what_data_and_config_disagree_on_is_found(ask):
    for override, told in (
        ("scheduler.warmup_steps=9999", "scheduler.warmup_steps=9999: this run has "),
        ("objective.class_weights=[1,2,3]", "a list of 2 positive, finite numbers"),
    ):
        code, findings = ask(
            "experiment=quickstart", "tracker=none", "dataset.labels=null", "scheduler.warmup_ratio=0", override
        )
        assert code == 1
        assert any(told in text for _, verdict, text in findings if verdict == "fail")


def test_online_without_a_login_is_a_warning(ask, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    _, findings = ask("experiment=quickstart", "tracker.mode=online")
    assert [verdict for section, verdict, text in findings if section == "tracker" and "not logged in" in text] == [
        "warn"
    ]


MODEL = """
import torch
class Bag(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id, width=8):
        super().__init__()
        if width < 1:
            raise KeyError("no width")
        self.words = torch.nn.EmbeddingBag(vocab_size, width, padding_idx=pad_token_id)
        self.head = torch.nn.Linear(width, num_labels + (width == 9))
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return self.head(self.words(input_ids))
"""


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (8, "M parameters, logits of 2 classes"),
        (9, "for 2 pairs it returned (2, 3); must be logits (B, C), here (2, 2)"),
        (0, "raised KeyError: 'no width'"),
    ],
)
def test_a_model_of_ones_own_is_built_and_called(width, told, ask, plug):
    target = f"{plug(MODEL)}.Bag"
    own = (f"model._target_={target}", f"+model.args.width={width}")
    code, findings = ask(
        "experiment=quickstart", "tracker=none", "model.architecture={}", "model.mimetic_init=false", *own
    )
    assert code == int(width != 8)
    assert any(target in text and told in text for section, _, text in findings if section == "model")
    if width == 8:
        assert any("GiB needed for weights and optimizer" in text for _, _, text in findings)


def test_a_streamed_file_is_never_held(ask, monkeypatch, tmp_path):
    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:60]]
    for name, part in (("train.jsonl", [*rows, {"sentence1": "a"}]), ("dev.jsonl", rows[:20])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    seen = []
    monkeypatch.setattr("afqmc.diagnostics.model._CHUNK", 25)
    monkeypatch.setattr("afqmc.diagnostics.data.analyze", lambda data: seen.append(data.train) or analyze(data))
    own = ("dataset=jsonl", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "model=mini")
    code, findings = ask(*own, "dataset.streaming=true", "tracker=none")
    assert isinstance(seen[0], PairStream)
    assert code == 1
    told = {text: verdict for _, verdict, text in findings}
    assert told["train is streamed: not checked for repeated or shared pairs"] == "ok"
    assert [text for text, verdict in told.items() if verdict == "fail"] == [
        "train.jsonl:61: no 'sentence2' (dataset.sentence2_field names it)"
    ]
    assert any(text.startswith("train: tokens per pair") for text in told)


def test_the_json_report_has_its_figures_as_numbers(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", "experiment=quickstart", "tracker=none"])
    assert run_command(doctor.main) == 0
    facts = [finding.get("facts", {}) for finding in json.loads(capsys.readouterr().out)["findings"]]
    counts = next(row for row in facts if row.get("split") == "train" and "pairs" in row)
    assert counts["pairs"] == sum(counts["labels"].values()) == PAIRS["train"]
    assert (counts["exact_duplicates"], counts["shared_with"]) == (0, {"dev": 0, "test": 0})
    merged = {key: value for row in facts for key, value in row.items()}
    assert merged["majority_accuracy"] == 0.69
    assert 0.03 < merged["minimal_detectable_difference"] < 0.04
    for key in ("longest", "cut_share", "memory_needed_bytes", "disk_free_bytes", "parameters", "standard_error"):
        assert isinstance(merged[key], int | float), key


def test_wrong_overrides_are_told_in_json_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", "lr=-1"])
    assert run_command(doctor.main) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert (told["findings"][0]["verdict"], told["findings"][0]["text"][:9]) == ("fail", "lr=-1.0: ")
