"""Whatever a run rejects, the doctor and the check before a sweep reject with the same message."""

import json
import re
import sys

import pytest
from helpers import SMALL, quick_compose
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from afqmc import doctor
from afqmc import run as entry
from afqmc.cli import run_command
from afqmc.config import compose, load, to_yaml
from afqmc.data.sample import sample_files
from afqmc.diagnostics.checks import Checks
from afqmc.diagnostics.findings import Verdict
from afqmc.distributed.rank import Rank
from afqmc.models.wordpiece import train_wordpiece
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.preflight import preflight
from afqmc.runner.validation import config_checks, refusals
from afqmc.utils.errors import InputError

ROWS = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:40]]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
MODELS = """
import torch
class Frozen(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(vocab_size, num_labels, padding_idx=pad_token_id)
        self.requires_grad_(isinstance(self, Bag))
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return self.words(input_ids)
class Bag(Frozen):
    pass
class Three(Bag):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__(num_labels + 1, vocab_size, pad_token_id)
class Broken(Bag):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        raise KeyError("no width")
"""


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a directory with small data sets, pretrained models, and a module of custom models."""
    workspace = tmp_path_factory.mktemp("workspace")
    write(workspace / "train.jsonl", ROWS)
    write(workspace / "dev.jsonl", ROWS[:20])
    write(workspace / "zeros.jsonl", [row for row in ROWS if row["label"] == "0"])
    write(workspace / "ones.jsonl", [row for row in ROWS if row["label"] == "1"])
    write(workspace / "last.jsonl", sorted(ROWS, key=lambda row: row["label"]))
    three = [{**row, "label": "maybe"} if index % 5 == 0 else row for index, row in enumerate(ROWS)]
    write(workspace / "three.jsonl", three)
    write(workspace / "bad.jsonl", [*ROWS[:3], {"sentence1": "a", "label": "0"}])
    tokenizer = train_wordpiece([row["sentence1"] for row in ROWS], 300)
    shape = {"vocab_size": len(tokenizer), **SHAPE}
    for name, kind, config in (("bert", BertModel, BertConfig), ("deberta", DebertaV2Model, DebertaV2Config)):
        kind(config(**shape)).save_pretrained(workspace / name)
        tokenizer.save_pretrained(workspace / name)
    for name, change in (("deeper", {"num_hidden_layers": 3}), ("narrow", {"hidden_size": 16})):
        BertModel(BertConfig(**shape)).save_pretrained(workspace / name)
        tokenizer.save_pretrained(workspace / name)
        config = json.loads((workspace / name / "config.json").read_text())
        (workspace / name / "config.json").write_text(json.dumps(config | change))
    (workspace / "empty").mkdir()
    (workspace / "custom_models_of_this_test.py").write_text(MODELS)
    return workspace


@pytest.fixture
def inside(workspace, monkeypatch):
    """Make the workspace the current directory, with an importable module."""
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(workspace)
    yield workspace
    sys.modules.pop("custom_models_of_this_test", None)


DATA = ("dataset=files", "dataset.train_file=train.jsonl", "dataset.dev_file=dev.jsonl", "dataset.max_length=64")
MINI = (*DATA, "model=mini", "model.config_overrides.hidden_size=24", "model.config_overrides.intermediate_size=32")
CUSTOM = (*DATA, "model.name_or_path=bert", "model.mimetic_init=false")
WANDB = "tracker=wandb", "tracker.mode=offline"

REFUSED = [  # overrides of MINI, and part of the message
    ("trainer.device=cuda", "trainer.device=cuda: not on this machine"),
    ("trainer.mixed_precision=fp16 trainer.device=cpu", "allowed on this machine: auto, no, bf16"),
    ("distributed.strategy=fsdp", "needs several processes"),
    ("distributed.fsdp_sharding=shard_grad_op", "distributed.fsdp_sharding: only with distributed.strategy=fsdp"),
    ("distributed.fsdp_cpu_offload=true", "distributed.fsdp_cpu_offload: only with distributed.strategy=fsdp"),
    ("objective.class_weights=[1,2,3]", "a list of 2 positive, finite numbers"),
    ("objective.class_weights=[1,inf]", "a list of positive, finite numbers"),
    ("optimizer.weight_decay=abc", "optimizer.weight_decay=abc: torch.optim.AdamW rejects it"),
    ("optimizer.weight_decay=-3", "Invalid weight_decay value: -3"),
    ("+optimizer.foo=1", "optimizer.foo: AdamW has no such argument"),
    ("+optimizer.lr=1", "the learning rate is a top-level key: lr=1"),
    ("optimizer._target_=torch.optim.Adamm", "did you mean 'Adam'?"),
    ("optimizer._target_=no_such_module.Adam", "is it installed here?"),
    ("scheduler.warmup_steps=30", "scheduler.warmup_steps=30: this run has 30 steps"),
    ("scheduler.warmup_steps=7 trainer.max_steps=7", "this run has 7 steps"),
    ("scheduler.warmup_steps=9 dataset.batching=token_budget", "scheduler.warmup_steps=9: this run has 3 steps"),
    ("scheduler.warmup_ratio=2", "scheduler.warmup_ratio=2: must be >= 0 and < 1"),
    ("+scheduler.foo=1", "scheduler.foo"),
    ("model.name_or_path=./nowhere", "model.name_or_path=./nowhere: no such directory"),
    ("model.config_overrides.hidden_size=100", "must be a multiple of num_attention_heads=12"),
    ("+model.config_overrides.hiden_size=100", "model.config_overrides.hiden_size"),
    ("+model.config_overrides.hidden_act=nonsense", "model.config_overrides.hidden_act=nonsense"),
    ("dataset.max_length=100000", "this model has 512 positions; must be <= 512"),
    ("dataset.train_file=null", "dataset.train_file: is not set"),
    ("dataset.train_file=trian.jsonl", "no such file; did you mean 'train.jsonl'?"),
    ("dataset.train_file=.", "is a directory; a file was expected"),
    ("dataset.path=nowhere", "dataset.path=nowhere: no such directory or zip"),
    ("dataset.dev_file=bad.jsonl", "bad.jsonl:4: no 'sentence2'"),
    ("dataset.test_file=bad.jsonl", "bad.jsonl:4: no 'sentence2'"),
    ("dataset.dev_file=three.jsonl", "label 'maybe' is not one of: 0, 1"),
    ("dataset.train_file=ones.jsonl", "dataset.labels: two classes or more are needed"),
    ("dataset.num_folds=30 dataset.fold=0", "dataset.num_folds=30"),
    ("dataset.cache_dir=~no-such-user/x", "no such home directory"),
    ("dataset.dev_file=zeros.jsonl trainer.monitor=dev/roc_auc", "dev has no pair labelled '1'"),
    ("dataset.dev_file=zeros.jsonl trainer.monitor=dev/f1", "or use one of dev/loss, dev/accuracy"),
    ("dataset.dev_file=zeros.jsonl trainer.monitor=dev/mcc", "trainer.monitor=dev/mcc: cannot choose"),
    ("dataset.dev_file=ones.jsonl trainer.monitor=dev/average_precision", "dev has no pair labelled '0'"),
    ("dataset.train_file=three.jsonl trainer.monitor=dev/roc_auc", "dev has no pair labelled 'maybe'"),
    (
        "dataset.dev_file=zeros.jsonl trainer.monitor=dev/f1_decided",
        "a decision needs two classes with at least two dev",
    ),
    ("dataset.labels=[0,1,never] decision.metric=f1", "decision.metric=f1: needs two classes, and the data have 3"),
    ("dataset.labels=[0,1,never] trainer.monitor=dev/roc_auc", "dev has no pair labelled 'never'"),
    (
        "dataset.dev_file=last.jsonl dataset.max_dev_samples=5 trainer.monitor=dev/roc_auc",
        "no pair labelled '1' among its first 5 (dataset.max_dev_samples)",
    ),
    (
        "dataset.num_folds=2 dataset.fold=0 dataset.group_by_sentence=false dataset.max_dev_samples=1 "
        "trainer.monitor=dev/roc_auc",
        "among its first 1 (dataset.max_dev_samples)",
    ),
]
CUSTOM_REFUSED = [  # overrides of CUSTOM: pretrained and custom models
    (
        "performance.padding_free=true model.name_or_path=deberta",
        "performance.padding_free=true: not supported for deberta-v2",
    ),
    (
        "model.mimetic_init=true model.from_scratch=true model.name_or_path=deberta",
        "mimetic_init=true: not supported for deberta",
    ),
    ("model.mimetic_init=true", "only with model.from_scratch=true"),
    ("+model.config_overrides.num_hidden_layers=1", "only with model.from_scratch=true"),
    ("model.name_or_path=deberta model.pooling=pooler_output", "model.pooling=pooler_output: deberta-v2 has no pooler"),
    ("model.name_or_path=empty", "model.name_or_path=empty"),
    ("model.name_or_path=deeper", "16 tensors are missing"),
    ("model.name_or_path=narrow", "tensors have another shape"),
    ("+model.kwargs.width=3", "model.kwargs: only with model._target_"),
    ("model.name_or_path=null", "model.name_or_path: is not set"),
    ("model._target_=custom_models_of_this_test.Bga", "did you mean 'Bag'?"),
    ("model._target_=custom_models_of_this_test.Bag +model.kwargs.width=3", "model.kwargs.width: Bag has no such"),
    ("model._target_=custom_models_of_this_test.Three", "returned (2, 3) for 2 pairs"),
    ("model._target_=custom_models_of_this_test.Broken", "raised KeyError: 'no width'"),
    ("model._target_=custom_models_of_this_test.Frozen", "a model without trainable parameters"),
    ("model._target_=custom_models_of_this_test.Bag performance.padding_free=true", "not with a custom model"),
    ("model._target_=custom_models_of_this_test.Bag trainer.gradient_checkpointing=true", "does not support it"),
]
TRACKED = [  # overrides with W&B, offline
    (f"tracker.tags=[{'x' * 70}]", "tracker.tags=['xxxx"),
    (f"tracker.tags=[fine,{'x' * 65}]", "Tags must be between 1 and 64 characters"),
    ("tracker.tags=['']", "is empty. Tags must be between 1 and 64 characters"),
    ("tracker.project=a/b", "tracker.project=a/b: invalid for W&B: Invalid project name 'a/b'"),
    ("tracker.project='50%'", "tracker.project=50%: invalid for W&B"),
    (f"tracker.project={'x' * 129}", "exceeded 128 characters"),
]
CASES = [
    *(((*MINI, "tracker=none"), overrides.split(), message) for overrides, message in REFUSED),
    *(((*CUSTOM, "tracker=none"), overrides.split(), message) for overrides, message in CUSTOM_REFUSED),
    *(((*MINI, *WANDB), [override], message) for override, message in TRACKED),
]


def check_same_message(config, expected, directory):
    """Check that a run, the doctor and the check before a sweep reject a config with the same message."""
    with pytest.raises(InputError) as error:
        run_experiment(config, RunDir(directory / "run"))
    message = str(error.value)
    assert expected in message
    assert json.loads((directory / "run/status.json").read_text())["status"] == "refused"
    assert not (directory / "run/metrics.jsonl").exists()
    failed = [finding.text for finding in Checks(config).findings() if finding.verdict is Verdict.fail]
    # the doctor names all rows with the same error, the run only the first
    assert sum(text == message or text.startswith(f"{message} (also ") for text in failed) == 1
    assert preflight([config]) == {0: message}


@pytest.mark.parametrize(("base", "overrides", "message"), CASES, ids=[" ".join(case[1]) for case in CASES])
def test_run_doctor_and_preflight_agree(base, overrides, message, inside, tmp_path):
    """A run, the doctor and the check before a sweep reject a config with the same message."""
    check_same_message(quick_compose(base, *overrides), message, tmp_path)


INVALID = [  # rejected by the checks of the schema
    ("lrr=1", "lrr: no such key; did you mean 'lr'?"),
    ("lr=-1", "lr=-1.0: must be > 0 and <= 10"),
    ("batch_size=0", "batch_size=0: must be >= 1"),
    ("trainer.monitor=dev/f2", "did you mean 'dev/f1'?"),
    ("trainer.mode=min", "trainer.mode=min: would keep the worst epoch, since a higher dev/accuracy is better"),
    ("trainer.mode=max trainer.monitor=dev/loss", "since a lower dev/loss is better; allowed: auto, min"),
    ("trainer.gradient_accumulation_steps=9", "must be <= batch_size=4"),
    ("dataset.batching=token_budget dataset.streaming=true", "not with dataset.streaming=true"),
    ("dataset.batching=token_budget dataset.max_tokens_per_batch=8", "must be >= dataset.max_length=64"),
    ("dataset.fold=1", "dataset.fold=1: also set dataset.num_folds"),
    ("dataset.num_folds=2 dataset.fold=2", "must be >= 0 and < dataset.num_folds=2"),
    ("dataset.num_folds=2 dataset.fold=0 dataset.streaming=true", "folds need all pairs in memory"),
    ("model.pooling=men", "must be one of cls, mean, max, first_last_avg, pooler_output"),
    ("experiment=quickstrt", "did you mean 'quickstart'?"),
]


@pytest.mark.parametrize(("overrides", "message"), INVALID)
def test_invalid_config_is_not_composed(overrides, message, inside):
    """A config that does not fit the schema is rejected while it is composed, which all commands do first."""
    with pytest.raises(InputError, match=re.escape(message)):
        compose([*MINI, "tracker=none", *overrides.split()])


@pytest.mark.parametrize(("overrides", "message"), INVALID[:2])  # an unknown key, and a value out of range
def test_invalid_config_is_rejected_by_all_commands(overrides, message, inside, monkeypatch, capsys):
    """A run, the doctor and a sweep reject a config that does not fit the schema with the same message."""
    arguments, messages = [*MINI, "tracker=none", *overrides.split()], []
    for main, more in ((entry.main, []), (doctor.main, []), (entry.main, ["-m"])):
        monkeypatch.setattr(sys, "argv", ["afqmc", *more, *arguments])
        assert run_command(main) == 2
        messages.append(capsys.readouterr().err.strip())
    assert message in messages[0]
    assert messages[1] == messages[0]
    assert messages[2].endswith(messages[0])  # after the job's overrides


def test_launcher_settings_are_checked(inside, monkeypatch, tmp_path):
    """Settings of accelerate that the trainer does not support are rejected by all three."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    check_same_message(compose([*MINI, "tracker=none"]), "use_deepspeed: not supported", tmp_path)


def test_independent_errors_are_all_reported(inside):
    """Errors that do not depend on each other are all reported."""
    wrong = ["tracker.tags=['']", "distributed.fsdp_sharding=shard_grad_op", "+model.kwargs.a=1"]
    config = compose([*MINI, *WANDB, *wrong])
    report = "\n".join(text for _, text in refusals(config_checks(config, Rank())))
    for part in ("tracker.tags=", "distributed.fsdp_sharding: only with", "model.kwargs: only"):
        assert part in report


def test_sweep_with_several_processes_per_run(inside):
    """The check before a sweep takes the number of processes per run into account."""
    config = compose([*MINI, "tracker=none", "batch_size=1"])
    message = next(text for _, text in refusals(config_checks(config, Rank(world_size=2))))
    assert preflight([config], processes=2) == {0: message}
    assert "cannot be divided over 2 processes" in message


def test_sweep_reuses_model_for_checks(inside):
    """The check before a sweep checks each trainer config against the same model."""
    overrides = [*CUSTOM, "tracker=none", "model.name_or_path=deberta"]
    configs = [compose([*overrides, override]) for override in ("seed=1", "performance.padding_free=true", "seed=2")]
    assert preflight(configs).keys() == {1}


def test_defined_metrics_are_accepted(inside, tmp_path):
    """A metric that dev defines is accepted as trainer.monitor, even if dev has one class."""
    for override in ("dataset.dev_file=zeros.jsonl", "dataset.dev_file=ones.jsonl trainer.monitor=dev/f1"):
        config = compose([*MINI, "tracker=none", *override.split()])
        assert preflight([config]) == {}


def test_contradicting_mode_of_older_run(tmp_path, caplog):
    """The config of an older run whose mode contradicts its metric is loaded with a warning."""
    text = to_yaml(compose([*SMALL]))
    (tmp_path / "config.yaml").write_text(text.replace("  mode: auto\n  patience", "  mode: min\n  patience"))
    assert "mode: min" in (tmp_path / "config.yaml").read_text()
    assert load(tmp_path).trainer.higher_is_better
    assert "holds the WORST epoch by dev/accuracy" in caplog.text
