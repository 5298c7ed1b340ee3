"""Distillation from a sweep over folds: out-of-fold logits, unlabelled pairs, the loss, resuming and refusals."""

import copy
import json
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from equality import differences, metrics
from helpers import SMALL, command, prepared, rows, small, summary, train
from pairs_loop import PLAIN, plain_losses, shuffled_batches
from teacher import write_teacher

from afqmc.config import compose
from afqmc.data.batching import Batch
from afqmc.data.config import Swap
from afqmc.data.loading import load_dataset
from afqmc.distributed.rank import Rank
from afqmc.evaluation.metrics import mean_as_logits
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.data_methods import training_pairs
from afqmc.runner.experiment import run_experiment
from afqmc.runner.trainer import Trainer
from afqmc.runner.validation import validate_config
from afqmc.training.objectives.distillation import Distillation
from afqmc.utils.errors import InputError

STEPS = 30

# A schedule that kills the process at step 7, in the middle of an epoch.
KILLING = """
import os, signal
def linear(step, total_steps):
    if step == 7 and os.path.exists("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return 1 - step / total_steps
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A directory with a sweep of two folds and a file of unlabelled pairs."""
    directory = tmp_path_factory.mktemp("teacher")
    write_teacher(directory)
    return directory


def student(teacher, *more):
    """Return the overrides of a student."""
    return (
        "objective=distillation", f"dataset.teacher={teacher / 'sweep'}",
        f"dataset.unlabelled_file={teacher / 'more.jsonl'}", *more,
    )  # fmt: skip


def predictions(run_dir):
    lines = (run_dir / "predictions/dev.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row["logits"] for row in map(json.loads, lines)}


def test_pairs_have_the_logits_of_the_run_that_held_them_out(teacher, tmp_path):
    """Pairs of train have out-of-fold logits; unlabelled pairs have the mean probabilities of all runs."""
    setup = prepared(tmp_path / "run", *student(teacher))
    folds = [predictions(teacher / "sweep" / name) for name in "01"]
    assert not folds[0].keys() & folds[1].keys()
    pairs, given = setup.train.pairs, setup.data.train
    expected = [(folds[0] | folds[1])[pair_id] for pair_id in given.ids]
    logits = pairs.teacher_logits
    np.testing.assert_allclose(_centered(logits[: len(given)]), _centered(np.array(expected)), atol=1e-6)
    unlabelled = replace(pairs.select([*range(len(given), len(pairs))], "more"), labels=None)
    assert (len(unlabelled), set(pairs.labels[len(given) :])) == (19, {-100})
    members = [Predictor.load(teacher / "sweep" / name).evaluate(unlabelled).logits for name in "01"]
    np.testing.assert_allclose(_centered(logits[len(given) :]), _centered(mean_as_logits(members)), atol=1e-5)
    assert setup.train.report == {
        "teacher/runs": 2, "teacher/labelled": 96, "teacher/unlabelled": 19, "teacher/unlabelled_share": 0.904762,
    }  # fmt: skip


def _centered(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def distillation_loss(temperature, weight):
    """Return the loss of the paper; a target is the label and the teacher's two logits."""

    def loss(logits, targets):
        labels, teacher = targets[:, 0].long(), torch.softmax(targets[:, 1:].float() / temperature, dim=1)
        terms = []
        for label, p, z in zip(labels, teacher, logits, strict=True):
            soft = (p * (p.log() - torch.log_softmax(z / temperature, dim=0))).sum()
            hard = -torch.log_softmax(z, dim=0)[label] if label >= 0 else 0
            terms.append((1 - weight) * hard + weight * temperature**2 * soft)
        return torch.stack(terms).mean()

    return loss


def test_losses_equal_plain_loop(teacher, tmp_path):
    """The losses of 30 steps equal those of a plain loop of the paper's loss."""
    arguments = ("objective.temperature=3", "objective.weight=0.7", "batch_size=4", f"trainer.max_steps={STEPS}")
    setup = prepared(tmp_path / "run", *student(teacher, *PLAIN, *arguments))
    state, pairs = copy.deepcopy(setup.model.state_dict()), setup.train.pairs
    targets = [[label, *logits] for label, logits in zip(pairs.labels, pairs.teacher_logits.tolist(), strict=True)]
    columns = [*zip(pairs.sentence1, pairs.sentence2, targets, strict=True)]
    batches = shuffled_batches(columns, setup.config.seed, 4, STEPS)
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    plain = plain_losses(state, setup, batches, distillation_loss(3.0, 0.7))
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-6)


def test_weight_0_changes_no_bit(teacher, tmp_path):
    """With weight 0 and no unlabelled pairs, the run equals plain training, bit for bit."""
    plain = train(tmp_path / "plain", "epochs=1")
    sweep = f"dataset.teacher={teacher / 'sweep'}"
    off = train(tmp_path / "off", "epochs=1", sweep, "objective=distillation", "objective.weight=0")
    assert set(differences(plain, off)) == {"metrics.jsonl", "summary.json"}  # which have the reports
    assert rows(plain, "train/loss") == rows(off, "train/loss")
    assert summary(plain)["best"] == summary(off)["best"]
    assert summary(off)["methods"]["objective/kl_divergence"] > 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_microbatch_losses_sum_to_batch_loss(count):
    """The losses of microbatches and shares sum to that of the batch, with unlabelled pairs in some of them."""
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(7, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([0, -100, 2, -100, 1, 1, -100])
    inputs = {"logits": logits.requires_grad_(), "attention_mask": torch.ones(7, 2)}
    batch, objective = Batch(inputs, labels, [*range(7)], 14, teacher), Distillation(2.5, 0.3)
    whole = objective(_echo, batch) / objective.normalizer(batch)
    parts = [part.shard(rank, 2) for part in batch.split(count) for rank in range(2)]
    loss = sum(objective(_echo, part) for part, counts in parts if counts) / objective.normalizer(batch)
    torch.testing.assert_close(loss, whole)
    targets = torch.cat([labels[:, None], teacher], dim=1)
    torch.testing.assert_close(whole, distillation_loss(2.5, 0.3)(logits, targets))
    torch.testing.assert_close(*(torch.autograd.grad(value, inputs["logits"])[0] for value in (loss, whole)))


def _echo(logits, attention_mask):
    return logits


def test_killed_student_is_resumed(teacher, tmp_path, plug):
    """A student with all data methods that was killed in the middle of an epoch resumes bit for bit.

    It reads the teacher's logits for unlabelled pairs from its directory.
    """
    name = plug(KILLING)
    more = ("dataset.swap=both", "checkpoint.save_steps=5", "epochs=1", f"scheduler._target_={name}.linear")
    config = compose([*SMALL, *student(teacher, *more)])
    uninterrupted, killed = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "killed")
    run_experiment(config, uninterrupted)
    (tmp_path / "kill").touch()
    done = command("run", *SMALL, *student(teacher, *more), f"hydra.run.dir={killed.path}", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 0 < len(metrics(killed)) < len(metrics(uninterrupted))
    saved = killed.teacher_logits.stat().st_mtime_ns
    run_experiment(config, killed, resume=True)
    assert differences(uninterrupted, killed) == []
    assert killed.teacher_logits.stat().st_mtime_ns == saved


def test_run_reports_teacher(teacher, tmp_path):
    """summary.json has the divergence from the teacher, and the number and share of its pairs."""
    run = train(tmp_path / "run", *student(teacher, "trainer.max_steps=3", "trainer.gradient_accumulation_steps=2"))
    figures = summary(run)["methods"]
    assert (figures["teacher/labelled"], figures["teacher/unlabelled"]) == (96, 19)
    assert figures["objective/kl_divergence"] == rows(run, "objective/kl_divergence")[-1] > 0
    assert summary(run)["data"]["train"]["pairs"] == 96


def test_swapped_teacher_scores_both_orders(teacher, tmp_path):
    """A teacher that evaluates both orders gives the mean of both for unlabelled pairs."""
    shutil.copytree(teacher / "sweep", tmp_path / "sweep")
    for name in "01":
        config = tmp_path / "sweep" / name / "config.yaml"
        config.write_text(config.read_text("utf-8").replace("swap: none", "swap: both"), encoding="utf-8")
    overrides = (f"dataset.teacher={tmp_path / 'sweep'}", f"dataset.unlabelled_file={teacher / 'more.jsonl'}")
    setup = prepared(tmp_path / "run", "objective=distillation", *overrides)
    given, pairs = setup.data.train, setup.train.pairs
    unlabelled = replace(pairs.select([*range(len(given), len(pairs))], "more"), labels=None)
    predictors = [Predictor.load(tmp_path / "sweep" / name) for name in "01"]
    assert predictors[0].config.dataset.swap is Swap.both
    members = [predictor.evaluate(unlabelled).logits for predictor in predictors]
    expected = _centered(mean_as_logits(members))
    np.testing.assert_allclose(_centered(pairs.teacher_logits[len(given) :]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("dataset.max_train_samples=95",), "0 was trained on other pairs than sample/train.json"),
        (("dataset.labels=['1','0']",), "was trained on other pairs than sample/train.json, or on other labels"),
        (("dataset.unlabelled_file=nowhere.jsonl",), "dataset.unlabelled_file=nowhere.jsonl: no such file"),
    ],
)
def test_teacher_of_other_pairs_is_refused(teacher, change, message):
    """A teacher that was trained on other pairs is refused by the name of its run."""
    config = small(*student(teacher, *change)).dataset
    with pytest.raises(InputError) as refusal:
        training_pairs(config, load_dataset(config))
    assert message in str(refusal.value)


def test_teacher_with_custom_code_is_refused(teacher, tmp_path):
    """The directory may be untrusted: code that a run names is not imported."""
    shutil.copytree(teacher / "sweep", tmp_path / "sweep")
    for name in "01":
        config = tmp_path / "sweep" / name / "config.yaml"
        text = config.read_text("utf-8")
        config.write_text(
            re.sub("model:\n", "model:\n  _target_: evil.Model\n", text.replace("  _target_: null\n", ""))
        )
    overrides = (f"dataset.teacher={tmp_path / 'sweep'}", f"dataset.unlabelled_file={teacher / 'more.jsonl'}")
    with pytest.raises(InputError, match="model._target_=evil.Model is untrusted code"):
        prepared(tmp_path / "run", "objective=distillation", *overrides)


def test_incomplete_or_unsuitable_teachers_are_refused(teacher, small_run, tmp_path):
    """A teacher needs all folds of one setting."""
    shutil.copytree(teacher / "sweep/0", tmp_path / "one/0")
    shutil.copytree(small_run.path, tmp_path / "plain/0")
    shutil.copytree(small_run.path, tmp_path / "plain/1")
    config = (tmp_path / "plain/1/config.yaml").read_text("utf-8")
    (tmp_path / "plain/1/config.yaml").write_text(config.replace("seed: 42", "seed: 43"), encoding="utf-8")
    cases = {"one": "at least 2 complete runs", "plain": "its runs are not folds", "none": "no such directory"}
    for name, message in cases.items():
        dataset = small("objective=distillation", f"dataset.teacher={tmp_path / name}").dataset
        with pytest.raises(InputError, match=f"dataset.teacher=.*{message}"):
            training_pairs(dataset, load_dataset(dataset))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.teacher=x",), "dataset.teacher=x: also set objective=distillation"),
        (("objective=distillation",), "objective=distillation: also set dataset.teacher"),
        (("objective=distillation", "dataset.teacher=x", "objective.weight=1.5"), "objective.weight=1.5: must be >= 0"),
        (("objective=distillation", "dataset.teacher=x", "objective.temperature=0"), "objective.temperature=0: must"),
        (("dataset.unlabelled_file=x",), "dataset.unlabelled_file=x: also set dataset.teacher"),
        (("dataset.teacher=x", "dataset.streaming=true"), "dataset.teacher=x: not with dataset.streaming=true"),
        (
            ("dataset.teacher=x", "dataset.num_folds=2", "dataset.fold=0"),
            "dataset.teacher=x: not with dataset.num_fold",
        ),
        (("dataset.teacher=x", "dataset.transitive=true"), "dataset.teacher=x: not with dataset.transitive=true"),
    ],
)
def test_invalid_config_is_refused(overrides, message):
    """Keys that do not fit together are refused before anything is loaded."""
    with pytest.raises(InputError) as refusal:
        validate_config(small(*overrides), Rank())
    assert message in str(refusal.value)
