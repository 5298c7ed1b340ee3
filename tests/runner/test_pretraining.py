"""``afqmc pretrain``: equal to a plain loop, exact, resumable, without dev and test sentences, usable as a model."""

import copy
import json
import re
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from equality import differences
from helpers import command, quick_compose, rows, small, summary
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, get_scheduler

from afqmc.compare import compare_paths
from afqmc.config import compose
from afqmc.config.overrides import check_command
from afqmc.config.resume import Resume
from afqmc.data.loading import load_dataset
from afqmc.data.sentences import PRETRAINING_FILE, load_sentences, sentence_key
from afqmc.distributed.rank import current_rank
from afqmc.inference.predictor import Predictor
from afqmc.models.layers import named_layers
from afqmc.models.loading import check_model_config
from afqmc.results.runs import find_runs
from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import build_setup
from afqmc.runner.teacher import find_teacher
from afqmc.runner.trainer import Trainer
from afqmc.runner.validation import validate_config
from afqmc.training.optim import build_optimizer
from afqmc.training.parameter_groups import describe_groups
from afqmc.utils.errors import InputError

SMALL = (
    "dataset=sample", "model=mini", "tracker=none", "lr=1e-3", "batch_size=8", "epochs=2",
    "dataset.max_train_samples=60", "trainer.mixed_precision=no", "trainer.logging_steps=1",
    *(f"model.config_overrides.{key}" for key in (
        "hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "num_attention_heads=4",
    )),
)  # fmt: skip
NO_DROPOUT = tuple(
    f"+model.config_overrides.{key}=0" for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")
)
STEPS = 30


def pretraining(*overrides):
    return quick_compose(SMALL, *overrides, config_name="pretrain")


def pretrain(directory, *overrides):
    run_experiment(pretraining(*overrides), RunDir(directory))
    return RunDir(directory)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A complete pretraining. Tests only read it."""
    return pretrain(tmp_path_factory.mktemp("pretraining") / "run")


def plain_losses(model, setup, steps):
    """Pretrain with a plain loop: the loss of transformers, AdamW without decay of vectors, a linear schedule."""
    seed, texts, tokenizer = setup.config.seed, setup.data.train.sentence1, setup.tokenizer
    orders = [np.random.default_rng((seed, epoch)).permutation(len(texts)) for epoch in range(steps)]
    batches = [(epoch, order[at : at + 8]) for epoch, order in enumerate(orders) for at in range(0, len(order), 8)]
    weights = [p for p in model.parameters() if p.ndim >= 2], [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights[0], "weight_decay": 0.01}, {"params": weights[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=setup.config.lr)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=3, num_training_steps=steps)
    torch.manual_seed(seed)
    losses = []
    model.train()
    for epoch, chosen in batches[:steps]:
        batch = tokenizer([texts[row] for row in chosen], padding=True, return_tensors="pt")
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        for index, row in enumerate(chosen):
            length = int(batch["attention_mask"][index].sum())
            tokens = batch["input_ids"][index, :length].numpy()
            labels = setup.task.masker.mask(tokens, None, np.random.default_rng((1, seed, epoch, row)))
            batch["labels"][index, :length] = torch.from_numpy(labels)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def test_losses_equal_a_plain_loop(tmp_path):
    """The losses of 30 steps with dropout equal those of a plain loop, whose head computes all tokens."""
    (tmp_path / "run").mkdir()
    overrides = ("dataset.batching=random", "performance.fast_cpu_dropout=false", f"trainer.max_steps={STEPS}")
    setup = build_setup(pretraining(*overrides), RunDir(tmp_path / "run"))
    plain = copy.deepcopy(setup.model.lm)
    plain.base_model._forward_hooks.clear()
    assert plain.config.hidden_dropout_prob > 0
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(setup.run_dir, "train/loss")
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, plain_losses(plain, setup, STEPS), rtol=0, atol=1e-6)
    assert ours[-1] < ours[0]


def test_accumulation_is_exact(tmp_path):
    """One batch of 8, two microbatches of 4 and eight of 1 give the same losses, though they have unequal masks."""
    keys = (*NO_DROPOUT, "trainer.max_steps=6")
    whole = pretrain(tmp_path / "1", *keys)
    for count in (2, 8):
        divided = pretrain(tmp_path / str(count), *keys, f"trainer.gradient_accumulation_steps={count}")
        for name in ("train/loss", "dev/loss"):
            np.testing.assert_allclose(rows(divided, name), rows(whole, name), rtol=0, atol=1e-6)


SCHEDULE = """
import os, signal
at = None
def linear(step, total_steps):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1 - step / total_steps
"""


def test_sigkill_in_an_epoch(plug, tmp_path):
    """A run that is killed between checkpoints in an epoch and resumed equals one that was not, bit for bit."""
    module = plug(SCHEDULE)
    keys = (
        f"scheduler._target_={module}.linear",
        "~scheduler.warmup_ratio",
        "checkpoint.save_steps=5",
        "trainer.max_steps=10",
    )
    uninterrupted, killed = pretrain(tmp_path / "uninterrupted", *keys), RunDir(tmp_path / "killed")
    (tmp_path / f"{module}.py").write_text(SCHEDULE.replace("at = None", "at = 8"), encoding="utf-8")
    done = command("pretrain", *SMALL, *keys, f"hydra.run.dir={killed.path}", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_experiment(pretraining(*keys), killed, resume=True)
    assert differences(uninterrupted, killed) == []


def test_summary_and_metrics(pretrained):
    """The figures are the loss, masked accuracy and perplexity of the held-out sentences; the loss falls."""
    content = summary(pretrained)
    assert content["status"] == "completed"
    assert content["best"].keys() == {"step", "epoch", "dev/loss", "dev/masked_accuracy", "dev/perplexity"}
    assert content["best"]["dev/perplexity"] == pytest.approx(np.exp(content["best"]["dev/loss"]))
    assert min(rows(pretrained, "dev/loss")) == content["best"]["dev/loss"]
    assert rows(pretrained, "train/loss")[-1] < rows(pretrained, "train/loss")[0]
    counts = content["pretraining"]
    assert counts["pretrained"] + counts["held_out"] + counts["excluded"] == counts["unique"]
    (run,) = find_runs([str(pretrained.path)])
    assert (run.is_complete, run.monitor, run.figures["dev/loss"]) == (True, "dev/loss", content["best"]["dev/loss"])


@pytest.fixture
def files(tmp_path):
    """Pairs whose train split shares sentences with dev and test; return the overrides."""
    pairs = {
        "train": [
            ("怎么还款", "如何还款"),
            ("花呗额度", "如何 还款"),
            ("借呗利息ＯＫ", "逾期怎么办"),
            ("提前还", "关闭"),
        ],
        "dev": [("怎么还款", "借呗利息ok"), ("别的", "关闭花呗")],
        "test": [("逾期 怎么办", "另一个"), ("三", "四")],
    }
    for name, split in pairs.items():
        lines = [json.dumps({"sentence1": a, "sentence2": b, "label": str(i % 2)}) for i, (a, b) in enumerate(split)]
        (tmp_path / f"{name}.json").write_text("\n".join(lines))
    return ["dataset=files", f"dataset.path={tmp_path}", *(f"dataset.{name}_file={name}.json" for name in pairs)]


def test_dev_and_test_sentences_are_left_out(files):
    """Sentences of dev and test are left out, whatever their case, width and spaces; others occur once."""
    data, counts = load_sentences(compose(files).dataset, 0.2)
    assert {*data.train.sentence1, *data.dev.sentence1} == {"如何还款", "花呗额度", "提前还", "关闭"}
    assert (counts.unique, counts.in_dev, counts.in_test, counts.excluded) == (7, 2, 1, 3)
    assert (counts.pretrained, counts.held_out) == (3, 1)


def test_no_sentence_left(files, tmp_path):
    shutil.copy(tmp_path / "train.json", tmp_path / "dev.json")
    with pytest.raises(InputError, match="0 of 7 sentences are left for pretraining"):
        load_sentences(compose(files).dataset, 0.2)


def test_folds_are_left_out():
    """With folds, the sentences of the dev fold are left out."""
    config = compose(["dataset=sample", "dataset.max_train_samples=200", "dataset.num_folds=2", "dataset.fold=1"])
    dev = load_dataset(config.dataset).dev
    data, counts = load_sentences(config.dataset, 0.1)
    held_out = {sentence_key(text) for text in (*dev.sentence1, *dev.sentence2)}
    assert counts.in_dev > 0
    assert not held_out & {sentence_key(text) for text in (*data.train.sentence1, *data.dev.sentence1)}


def test_transformers_loads_the_result(pretrained):
    """transformers loads the model with its head, which is tied to the embeddings, and the tokenizer."""
    model, info = AutoModelForMaskedLM.from_pretrained(pretrained.best, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert AutoTokenizer.from_pretrained(pretrained.best).mask_token == "[MASK]"


@pytest.mark.parametrize("part", ["", "checkpoints/best"])
def test_encoder_is_bit_equal(pretrained, tmp_path, caplog, part):
    """A fine-tuning run starts with the encoder and the tokenizer of the pretraining; the head is dropped silently."""
    (tmp_path / "run").mkdir()
    path = pretrained.path / part
    setup = build_setup(
        compose(["dataset=sample", "tracker=none", "model=pretrained", f"model.name_or_path={path}"]),
        RunDir(tmp_path / "run"),
    )
    saved, loaded = load_file(pretrained.best / "model.safetensors"), setup.model.state_dict()
    names = [name for name in loaded if name.startswith("bert.")]
    assert names
    assert all(torch.equal(saved[name], loaded[name]) for name in names)
    assert setup.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(pretrained.best).get_vocab()
    assert not [record for record in caplog.records if "tensors" in record.message or "weights for" in record.message]


def test_pretraining_can_continue(pretrained, tmp_path):
    """A pretraining starts with the weights of another one, head included."""
    (tmp_path / "run").mkdir()
    other = [key for key in SMALL if not key.startswith("model")]
    model = ("model=pretrained", f"model.name_or_path={pretrained.path}")
    setup = build_setup(compose([*other, *model], config_name="pretrain"), RunDir(tmp_path / "run"))
    saved, loaded = load_file(pretrained.best / "model.safetensors"), setup.model.lm.state_dict()
    assert any(name.startswith("cls.predictions.transform") for name in saved)
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    text = (pretrained.best / PRETRAINING_FILE).read_text()
    assert len(text.split()) == summary(pretrained)["pretraining"]["pretrained"]
    other = replace(setup.data, train=setup.data.train.select([0, 1], "other"))
    assert setup.task.weights_files(other) == {PRETRAINING_FILE: text}  # of both


def test_pretrained_on_dev_is_refused(pretrained, tmp_path):
    """A run whose dev sentences were pretrained on is refused, with their number."""
    folds = ("dataset.max_train_samples=60", "dataset.num_folds=2", "dataset.fold=0")
    model = ("model=pretrained", f"model.name_or_path={pretrained.path}")
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"was pretrained on \d+ sentences of this run's dev split"):
        build_setup(compose(["dataset=sample", "tracker=none", *folds, *model]), RunDir(tmp_path / "run"))


def test_fine_tuning_run_is_not_a_model(small_run):
    """The directory of a fine-tuning run is refused as a model, with the path of its encoder."""
    with pytest.raises(InputError, match=re.escape(f"model.name_or_path={small_run.path}: is a fine-tuning run")):
        check_model_config(compose(["model=pretrained", f"model.name_or_path={small_run.path}"]).model)


def test_commands_for_pairs_refuse_it(pretrained):
    """evaluate, predict and compare name the command to use instead."""
    with pytest.raises(InputError, match=r"is a run of afqmc.pretrain, which has no classifier"):
        Predictor.load(pretrained.path)
    with pytest.raises(InputError, match="is a run of afqmc.pretrain, which predicts no pairs"):
        compare_paths([pretrained.path])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("masking.probability=0", "masking.probability=0.0: must be > 0"),
        ("masking.probability=0.9", "masking.probability=0.9: must be > 0 and <= 0.5"),
        ("masking.dev_share=0.5", "masking.dev_share=0.5"),
        ("masking.max_ngram=0", "masking.max_ngram=0"),
        ("trainer.monitor=dev/accuracy", "trainer.monitor=dev/accuracy: no such metric"),
        ("trainer.monitor=dev/perplexity", "trainer.monitor=dev/perplexity: no such metric"),
        (
            "objective=cross_entropy",
            "objective._target_=afqmc.training.objectives.cross_entropy.CrossEntropy: not with",
        ),
        ("dataset.streaming=true", "dataset.streaming=true: not with afqmc.pretrain"),
        ("dataset.max_dev_samples=5", "dataset.max_dev_samples, dataset.max_test_samples: not with afqmc.pretrain"),
        ("performance.padding_free=true", "performance.padding_free=true: not with afqmc.pretrain"),
        ("distributed=fsdp", "distributed.strategy=fsdp: not with afqmc.pretrain"),
        ("model.classifier_dropout=0.1", "model.classifier_dropout: not with afqmc.pretrain"),
        ("tracker.log_model=true", "tracker.log_model=true: not with afqmc.pretrain"),
        ("dataset.swap=both", "dataset.swap=both: not with afqmc.pretrain"),
        ("dataset.transitive=true", "dataset.transitive=true: not with afqmc.pretrain"),
        ("dataset.teacher=runs", "dataset.teacher, dataset.unlabelled_file: not with afqmc.pretrain"),
        ("dataset.unlabelled_file=a.jsonl", "dataset.teacher, dataset.unlabelled_file: not with afqmc.pretrain"),
        ("model.dropout.multi_sample=5", "model.dropout.multi_sample=5: not with afqmc.pretrain"),
        ("model.freeze=[embeddings]", "model.freeze: not with afqmc.pretrain"),
        ("model.reinit_layers=1", "model.reinit_layers=1: not with afqmc.pretrain"),
        ("model.lora.r=8", "model.lora.r=8: not with afqmc.pretrain"),
        ("model.mixout=0.5", "model.mixout=0.5: not with afqmc.pretrain"),
        ("sweep.baseline=plain", "sweep.baseline=plain: not with afqmc.pretrain"),
    ],
)
def test_invalid_configs(override, message):
    """A key without meaning in pretraining is refused by name."""
    with pytest.raises(InputError) as refusal:
        pretraining(override)
    assert message in str(refusal.value)


METHODS = {
    "averages": (("callbacks=[ema,soup]", "trainer.eval_steps=4"), {"ema/distance", "soup/ingredients"}),
    "attack": (("callbacks=[fgm]",), {"fgm/norm"}),
    "weight attack": (("callbacks=[awp]",), {"awp/relative_norm"}),
    "muon": (("optimizer=muon",), set()),
    "schedule_free": (("optimizer=schedule_free", "scheduler=constant"), {"averaged_weights/average_distance"}),
    "layer rates": (("optimizer.layer_decay=0.5", "optimizer.head_lr=2e-3"), {"optimizer/lowest_lr"}),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(tmp_path, name):
    """Methods that do not need pairs work with the masked language model, and report that they were active."""
    overrides, reports = METHODS[name]
    result = summary(pretrain(tmp_path / "run", "trainer.max_steps=12", *overrides))
    assert reports <= result.get("methods", {}).keys()
    assert "dev/asymmetry" not in result["best"]


def test_layers_of_the_masked_lm(tmp_path):
    """Tied embeddings have the lowest rate, and the head the rate of the head."""
    setup = build_setup(pretraining("optimizer.layer_decay=0.5", "optimizer.head_lr=2e-3"), RunDir(tmp_path))
    optimizer = build_optimizer(setup.config.optimizer, setup.model, 1e-3)
    rates = {name: float(lr) for name, _, lr, _ in describe_groups(optimizer)}
    assert rates == {"embeddings": 2.5e-4, "0": 5e-4, "1": 1e-3, "lm_head": 2e-3}
    assert list(named_layers(setup.model, "")["lm_head"])[-1] == "lm.cls.predictions.transform.LayerNorm.bias"


def test_doctor_refuses_it(tmp_path):
    done = command("doctor", "--config-name", "pretrain", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert "afqmc.doctor: checks runs of afqmc.run" in done.stderr


def test_teacher_of_pretraining_runs_is_refused(pretrained):
    with pytest.raises(InputError, match=r"dataset.teacher=.*is a run of afqmc.pretrain"):
        find_teacher(str(pretrained.path))


def test_fine_tuning_refuses_the_objective():
    with pytest.raises(InputError, match="objective=masked_lm: only with afqmc.pretrain"):
        small("objective=masked_lm")


def test_missing_segmenter_is_found_first(monkeypatch):
    """Without the segmenter, whole-word masks are refused before anything is read."""
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(InputError, match=r"pip install 'afqmc\[words\]'"):
        validate_config(pretraining("masking=whole_word"), current_rank())


@pytest.mark.parametrize("override", ["masking=token", "masking.unit=token", "+masking.probability=0.2"])
def test_run_refuses_masking(override):
    with pytest.raises(InputError, match=re.escape(f"{override}: only with afqmc.pretrain")):
        check_command(["lr=1e-3", override], "run")
    check_command([override], "pretrain")


def test_command(tmp_path):
    """The command trains in a directory of its own; a pooling on the command line is refused; resume= resumes."""
    refused = command("pretrain", *SMALL, "model.pooling=max", cwd=tmp_path)
    assert (refused.returncode, "model.pooling=max: not with afqmc.pretrain" in refused.stderr) == (2, True)
    done = command("pretrain", *SMALL, "hydra.run.dir=out", "trainer.max_steps=3", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "masked accuracy" in done.stdout
    assert re.search(r"\d+ sentences to pretrain on, \d+ held out; \d+ of the \d+ sentences", done.stdout)
    assert Resume(tmp_path / "out", []).config().masking.unit.value == "token"
