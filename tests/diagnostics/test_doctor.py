"""The doctor: problems of data, config, model and machine are found before a run."""

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
    """Return a function that runs the doctor and returns its exit code and findings as (section, verdict, text)."""

    def call(*overrides):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", *overrides])
        code = run_command(doctor.main)
        answer = json.loads(capsys.readouterr().out)
        assert answer["passed"] == (code == 0)
        return code, [(f["section"], f["verdict"], f["text"]) for f in answer["findings"]]

    return call


def test_quickstart_passes(ask):
    """The quickstart passes all checks, and the report has the main figures."""
    code, findings = ask("experiment=quickstart", "tracker=none")
    assert code == 0
    assert {section for section, _, _ in findings} == {
        "config", "data", "model", "tokens", "device", "tracker", "disk"
    }  # fmt: skip
    assert not [text for _, verdict, text in findings if verdict == "fail"]
    report = "\n".join(text for _, _, text in findings)
    for fact in (
        f"train: {PAIRS['train']} pairs",
        "scores 69.00%",
        "not distinguishable",
        "tokens per pair",
        "GiB free",
    ):
        assert fact in report


def test_data_problems_are_found(ask, tmp_path):
    """Invalid rows, duplicates, contradictions and leaks are reported with their lines."""
    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:30]]
    swapped = {**rows[0], "sentence1": rows[0]["sentence2"], "sentence2": rows[0]["sentence1"]}
    contradicting = {**rows[1], "label": "1" if rows[1]["label"] == "0" else "0"}
    bad = {**rows[2], "sentence1": ""}
    train = [*rows, rows[3], swapped, contradicting, bad]
    for name, content in (("train.jsonl", train), ("dev.jsonl", [*rows[4:10], rows[11]])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    own = ("dataset=files", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "model=mini")
    code, findings = ask(*own, "tracker=none")
    assert code == 1
    verdicts = {text: verdict for _, verdict, text in findings}
    assert verdicts["train.jsonl:34: 'sentence1' is empty"] == "fail"
    assert verdicts["train: 2 repeated pairs (lines 31, 33 of train.jsonl)"] == "warn"
    assert verdicts["train: 1 pairs repeated with the sentences swapped (line 32 of train.jsonl)"] == "warn"
    assert verdicts["train: 1 pairs with contradictory labels (lines 2, 33 of train.jsonl)"] == "warn"
    assert verdicts["train and dev share 7 pairs"] == "warn"


def test_all_failures_are_reported(ask, tmp_path):
    """Failures in several sections are all reported, not only the first."""
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


def test_truncated_pairs_are_counted(ask):
    """A max_length that truncates many pairs is a warning."""
    _, findings = ask("experiment=quickstart", "dataset.max_length=16", "tracker=none")
    verdict, text = next((verdict, text) for section, verdict, text in findings if section == "tokens")
    assert verdict == "warn"
    assert "cut at dataset.max_length=16" in text


def test_too_large_model_fails(ask):
    """A model that does not fit into memory is a failure."""
    huge = ("hidden_size=16384", "num_hidden_layers=96", "intermediate_size=65536", "num_attention_heads=128")
    code, findings = ask("dataset=sample", "model=mini", *(f"model.config_overrides.{s}" for s in huge), "tracker=none")
    assert code == 1
    assert any("GiB needed for weights" in text for _, verdict, text in findings if verdict == "fail")


def test_invalid_override_is_rejected(monkeypatch, capsys):
    """An invalid override is rejected as by the run, with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "lrr=1"])
    assert run_command(doctor.main) == 2
    assert "did you mean 'lr'?" in capsys.readouterr().err


def test_report_ends_with_verdict(monkeypatch, capsys, tmp_path):
    """The last line of the report is the verdict."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", *SMALL])
    assert run_command(doctor.main) == 0
    assert capsys.readouterr().out.strip().endswith("this run would go through: 0 failed, 0 warnings")


def test_config_dir_is_used(ask, tmp_path):
    """Options in --config-dir are found, as by the run."""
    (tmp_path / "my conf" / "model").mkdir(parents=True)
    (tmp_path / "my conf" / "model" / "tiny.yaml").write_text("defaults: [mini]\nvocab_size: 200\n")
    code, findings = ask("experiment=quickstart", "--config-dir", "my conf", "model=tiny", "tracker=none")
    assert code == 0
    assert any(re.search(r"vocabulary of (1..|200)$", text) for _, _, text in findings)


def test_missing_config_dir_is_rejected(monkeypatch, capsys):
    """A --config-dir that does not exist is rejected."""
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--config-dir", "nowhere"])
    assert run_command(doctor.main) == 2
    assert capsys.readouterr().err.strip() == "--config-dir nowhere: no such directory"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a directory with the weights, config and tokenizer of a small BERT."""
    directory = tmp_path_factory.mktemp("weights") / "bert"
    tokenizer = train_wordpiece(["花呗怎么还款", "借呗额度"] * 3, 100)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def truncate(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit_config(**changes):
    def change(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def convert_to_bin(directory):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "no usable weights in this directory"),
        (edit_config(hidden_size=16), "tensors have another shape, such as"),
        (edit_config(num_hidden_layers=3), "16 tensors are missing, such as encoder.layer.2"),
        (
            lambda directory: (convert_to_bin(directory), edit_config(num_hidden_layers=3)(directory)),
            "16 tensors are missing",
        ),
    ],
)
def test_unusable_weights_fail(weights, damage, message, ask, tmp_path):
    """Weights that the run rejects are a failure of the model, with the same message."""
    shutil.copytree(weights, tmp_path / "mine")
    damage(tmp_path / "mine")
    code, findings = ask("dataset=sample", "model.name_or_path=mine", "tracker=none")
    assert code == 1
    assert [section for section, verdict, text in findings if verdict == "fail" and message in text] == ["model"]
    run = command("run", "dataset=sample", "model.name_or_path=mine", "tracker=none", cwd=tmp_path)
    assert run.returncode == 2
    assert message in run.stderr


@pytest.mark.parametrize("change", [lambda directory: None, convert_to_bin])
def test_usable_weights_pass(weights, change, ask, tmp_path):
    """Complete weights pass, as safetensors and as pytorch_model.bin."""
    shutil.copytree(weights, tmp_path / "mine")
    change(tmp_path / "mine")
    code, findings = ask("dataset=sample", "model.name_or_path=mine", "tracker=none")
    assert code == 0
    assert ("model", "ok", "weights found; they fit the architecture") in findings


def test_config_that_does_not_fit_data_fails(ask):
    """A schedule or class weights that do not fit the data are failures."""
    for override, message in (
        ("scheduler.warmup_steps=9999", "scheduler.warmup_steps=9999: this run has "),
        ("objective.class_weights=[1,2,3]", "a list of 2 positive, finite numbers"),
    ):
        code, findings = ask(
            "experiment=quickstart", "tracker=none", "dataset.labels=null", "scheduler.warmup_ratio=0", override
        )
        assert code == 1
        assert any(message in text for _, verdict, text in findings if verdict == "fail")


def test_online_without_login_warns(ask, monkeypatch, tmp_path):
    """W&B in online mode without a login is a warning."""
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
    ("width", "message"),
    [
        (8, "M parameters, logits of 2 classes"),
        (9, "returned (2, 3) for 2 pairs; must be logits (B, C), here (2, 2)"),
        (0, "raised KeyError: 'no width'"),
    ],
)
def test_custom_model_is_called(width, message, ask, plug):
    """A custom model is built and called; an invalid result or an exception is a failure."""
    target = f"{plug(MODEL)}.Bag"
    own = (f"model._target_={target}", f"+model.kwargs.width={width}")
    code, findings = ask(
        "experiment=quickstart", "tracker=none", "model.config_overrides={}", "model.mimetic_init=false", *own
    )
    assert code == int(width != 8)
    assert any(target in text and message in text for section, _, text in findings if section == "model")
    if width == 8:
        assert any("GiB needed for weights and optimizer" in text for _, _, text in findings)


def test_streamed_file_is_not_loaded(ask, monkeypatch, tmp_path):
    """A streamed file is checked in chunks, without the checks that need all pairs in memory."""
    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:60]]
    for name, content in (("train.jsonl", [*rows, {"sentence1": "a"}]), ("dev.jsonl", rows[:20])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    seen = []
    monkeypatch.setattr("afqmc.diagnostics.model._CHUNK", 25)
    monkeypatch.setattr("afqmc.diagnostics.data.analyze", lambda data: seen.append(data.train) or analyze(data))
    own = ("dataset=files", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "model=mini")
    code, findings = ask(*own, "dataset.streaming=true", "tracker=none")
    assert isinstance(seen[0], PairStream)
    assert code == 1
    verdicts = {text: verdict for _, verdict, text in findings}
    assert verdicts["train is streamed: not checked for repeated or shared pairs"] == "ok"
    assert [text for text, verdict in verdicts.items() if verdict == "fail"] == [
        "train.jsonl:61: no 'sentence2' (dataset.sentence2_field names it)"
    ]
    assert any(text.startswith("train: tokens per pair") for text in verdicts)


def test_json_report_has_numbers(monkeypatch, capsys, tmp_path):
    """The figures in the JSON report are numbers."""
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


def test_invalid_override_in_json(monkeypatch, capsys):
    """With --json an invalid override is reported as JSON."""
    monkeypatch.setattr(sys, "argv", ["afqmc.doctor", "--json", "lr=-1"])
    assert run_command(doctor.main) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert (report["findings"][0]["verdict"], report["findings"][0]["text"][:9]) == ("fail", "lr=-1.0: ")
