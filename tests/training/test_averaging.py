"""Averages of the weights."""

from types import SimpleNamespace

import pytest
import torch
from helpers import prepared, rows, small, summary, train
from safetensors.torch import load_file
from torch import nn
from tutorial_loop import largest_difference, train_and_compare, tutorial

from afqmc.checkpoint.serialization import read_state
from afqmc.distributed.rank import Rank
from afqmc.runner.validation import validate_config
from afqmc.training.callbacks.ema import Ema
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
    """Frozen weights are not averaged, and a step that fp16 skips does not count."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    model[0].requires_grad_(False)
    ema, accelerator = Ema(0.5), SimpleNamespace(optimizer_step_was_skipped=True)
    ema.on_fit_start(SimpleNamespace(model=model))
    assert [*ema.state_dict()["average"]] == ["1.weight"]
    ema.on_after_optimizer_step(SimpleNamespace(accelerator=accelerator))
    assert ema.state_dict()["updates"] == 0
    accelerator.optimizer_step_was_skipped = False
    ema.on_after_optimizer_step(SimpleNamespace(accelerator=accelerator))
    assert ema.state_dict()["updates"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ema.decay=1", "callbacks.ema.decay=1: must be >= 0 and < 1"),
        ("ema.update_every=0", "callbacks.ema.update_every=0: must be a whole number >= 1"),
    ],
)
def test_invalid_arguments(override, message):
    name = override.partition(".")[0]
    with pytest.raises(InputError, match=message):
        validate_config(small(f"callbacks=[{name}]", f"callbacks.{override}"), Rank())
