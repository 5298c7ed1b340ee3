"""Averages of the weights."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from helpers import prepared, rows, small, summary, train
from safetensors.torch import load_file
from torch import nn
from tutorial_loop import largest_difference, train_and_compare, tutorial

from afqmc.checkpoint.serialization import read_state
from afqmc.distributed.rank import Rank
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import evaluate_split
from afqmc.runner.validation import validate_config
from afqmc.training.callbacks.base import Callback
from afqmc.training.callbacks.ema import Ema
from afqmc.training.callbacks.soup import Soup
from afqmc.training.events import EvaluationEnd
from afqmc.training.state import BestTracker, TrainState
from afqmc.utils.errors import InputError

STEPS = 30


@pytest.mark.parametrize(("warmup", "every"), [(True, 1), (False, 2)])
def test_ema_equals_plain_loop(tmp_path, warmup, every):
    """The average over 30 steps equals that of a plain loop."""
    overrides = ("callbacks=[ema]", f"callbacks.ema.warmup={warmup}", f"callbacks.ema.update_every={every}")
    setup = prepared(tmp_path / "run", *tutorial(STEPS), "callbacks.ema.decay=0.9", *overrides, "lr=1e-4")
    average = {name: tensor.detach().clone() for name, tensor in setup.model.named_parameters()}
    steps = []

    def update(model):
        steps.append(len(steps))
        if len(steps) % every == 0:
            t = len(steps) // every - 1
            decay = min(0.9, (1 + t) / (10 + t)) if warmup else 0.9
            for name, parameter in model.named_parameters():
                average[name] = decay * average[name] + (1 - decay) * parameter.detach()

    trainer, _ = train_and_compare(setup, STEPS, after_step=update)
    raw = {name: tensor.detach().clone() for name, tensor in trainer.model.named_parameters()}
    ema = trainer.callbacks[0]
    with ema.evaluation_weights(trainer.model), torch.no_grad():
        assert largest_difference(dict(trainer.model.named_parameters()), average) < 1e-6
        assert largest_difference(raw, average) > 1e-5
    assert largest_difference(dict(trainer.model.named_parameters()), raw) == 0


def test_ema_does_not_change_the_training(tmp_path):
    """Losses and raw weights are those of a run without it; the average is evaluated and saved."""
    plain, averaged = train(tmp_path / "plain", "epochs=1"), train(tmp_path / "averaged", "epochs=1", "callbacks=[ema]")
    assert rows(plain, "train/loss") == rows(averaged, "train/loss")
    states = [read_state(run.path / "checkpoints/last") for run in (plain, averaged)]
    raw, other = (state["training"]["model"] for state in states)
    assert largest_difference(raw, other) == 0
    assert rows(plain, "dev/loss") != rows(averaged, "dev/loss")
    best = load_file(averaged.path / "checkpoints/best/model.safetensors")
    average = states[1]["callbacks"]["Ema"]["average"]
    assert best["classifier.weight"].equal(average["classifier.weight"])
    values = summary(averaged)["methods"]
    assert values["ema/raw_accuracy"] == rows(plain, "dev/accuracy")[-1]
    assert values["ema/averaged_accuracy"] == rows(averaged, "dev/accuracy")[-1]
    assert 0 < values["ema/distance"] < 1


def test_ema_without_frozen_weights_and_skipped_steps():
    """Frozen weights are not averaged, a step that fp16 skips does not count, and a rollback restores the average."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    model[0].requires_grad_(False)
    ema, accelerator = Ema(0.5), SimpleNamespace(optimizer_step_was_skipped=True)
    ema.on_fit_start(SimpleNamespace(model=model))
    assert [*ema.state_dict()["average"]] == ["1.weight"]
    ema.on_after_optimizer_step(SimpleNamespace(accelerator=accelerator))
    assert ema.state_dict()["updates"] == 0
    accelerator.optimizer_step_was_skipped = False
    ema.on_after_optimizer_step(SimpleNamespace(accelerator=accelerator))
    saved = copy.deepcopy(ema.state_dict())
    assert saved["updates"] == 1
    nn.init.ones_(model[1].weight)
    ema.on_after_optimizer_step(SimpleNamespace(accelerator=accelerator))
    assert not ema.state_dict()["average"]["1.weight"].equal(saved["average"]["1.weight"])
    ema.load_state_dict(saved)  # as a rollback does
    assert ema.state_dict()["average"]["1.weight"].equal(saved["average"]["1.weight"])


class Recorder(Callback):
    """Keeps the result and the weights of each evaluation."""

    def __init__(self, monitor):
        self.monitor, self.kept = monitor, []

    def on_evaluation_end(self, trainer, event):
        weights = {name: tensor.detach().clone() for name, tensor in trainer.model.named_parameters()}
        self.kept.append((event.evaluation.metrics[self.monitor], weights))


def mean(all_weights):
    return {name: sum(weights[name] for weights in all_weights) / len(all_weights) for name in all_weights[0]}


@pytest.mark.parametrize(
    ("recipe", "monitor", "sign"), [("uniform", "loss", -1), ("greedy", "loss", -1), ("greedy", "roc_auc", 1)]
)
def test_soup_equals_plain_recipe(tmp_path, recipe, monitor, sign):
    """The saved weights are the mean of those that a plain loop over the evaluations chooses."""
    overrides = ("callbacks=[soup]", "trainer.eval_steps=4", f"callbacks.soup.recipe={recipe}", "lr=2e-3")
    recorder, run = Recorder(monitor), RunDir(tmp_path / "run")
    config = small(*overrides, f"trainer.monitor=dev/{monitor}")
    run_experiment(config, run, callbacks=[recorder])
    by_value = sorted(recorder.kept, key=lambda kept: -sign * kept[0])
    assert len(by_value) == 6
    setup = prepared(tmp_path / "again", *overrides)

    def score(weights):
        setup.model.load_state_dict(weights, strict=False)
        return evaluate_split(setup, setup.pair_tokenizer.tokenize_cached(setup.data.dev), "dev").metrics[monitor]

    chosen = [weights for _, weights in by_value[: 3 if recipe == "uniform" else 1]]
    for _, weights in by_value[1:3] if recipe == "greedy" else []:
        if sign * score(mean([*chosen, weights])) >= sign * score(mean(chosen)):
            chosen.append(weights)
    saved = load_file(run.path / "checkpoints/best/model.safetensors")
    assert largest_difference(saved, {name: mean(chosen)[name] for name in saved}) < 1e-6
    reported, result = summary(run)["methods"], summary(run)
    assert reported["soup/ingredients"] == len(chosen)
    assert reported[f"soup/best_single_{monitor}"] == by_value[0][0]
    assert reported[f"soup/soup_{monitor}"] == result["best"][f"dev/{monitor}"]
    if recipe == "greedy":
        assert sign * reported[f"soup/soup_{monitor}"] >= sign * by_value[0][0]
    else:
        assert reported["soup/distance"] > 0


def test_soup_of_averages(tmp_path):
    """With ema, the soup averages the averaged weights, and both report."""
    config, recorder = small("callbacks=[ema,soup]"), Recorder("accuracy")
    run = RunDir(tmp_path / "run")
    run_experiment(config, run, callbacks=[recorder])
    saved = load_file(run.path / "checkpoints/best/model.safetensors")
    expected = mean([weights for _, weights in recorder.kept])
    assert len(recorder.kept) == 2
    assert largest_difference(saved, {name: expected[name] for name in saved}) < 1e-6
    assert {"ema/raw_accuracy", "soup/soup_accuracy"} <= summary(run)["methods"].keys()


def test_soup_needs_two_evaluations(tmp_path):
    with pytest.raises(InputError, match="callbacks.soup: this run has one evaluation"):
        run_experiment(small("callbacks=[soup]", "epochs=1"), RunDir(tmp_path / "run"))


def test_invalid_metrics_are_not_in_the_soup():
    """An evaluation whose metric is NaN is left out, and equal metrics keep their order."""
    soup, model = Soup(2), nn.Linear(1, 1)
    trainer = SimpleNamespace(model=model, state=TrainState(BestTracker("accuracy", True)))
    for step, value in enumerate([0.5, math.nan, 0.5, 0.4, 0.6]):
        soup.on_evaluation_end(
            trainer, EvaluationEnd(step, 1.0, SimpleNamespace(metrics={"accuracy": value}), is_best=False)
        )
    assert [(kept["step"], kept["value"]) for kept in soup.state_dict()["kept"]] == [(4, 0.6), (0, 0.5)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ema.decay=1", "callbacks.ema.decay=1: must be >= 0 and < 1"),
        ("soup.k=0", "callbacks.soup.k=0: must be a whole number >= 1"),
        ("soup.recipe=best", "callbacks.soup.recipe=best: must be uniform or greedy"),
        ("ema.update_every=0", "callbacks.ema.update_every=0: must be a whole number >= 1"),
    ],
)
def test_invalid_arguments(override, message):
    name = override.partition(".")[0]
    with pytest.raises(InputError, match=message):
        validate_config(small(f"callbacks=[{name}]", f"callbacks.{override}"), Rank())
