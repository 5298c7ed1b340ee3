"""Conventions of all methods: reports, the check that they were active, off switches, and conflicts."""

from typing import ClassVar

import pytest
import torch
from helpers import rows, small

from afqmc.distributed.rank import Rank
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import build_setup
from afqmc.runner.trainer import Trainer
from afqmc.runner.validation import validate_config
from afqmc.training.callbacks.base import Callback
from afqmc.utils.errors import InputError


class Late(Callback):
    """Counts the steps from ``first`` on. Strength 0 switches it off."""

    def __init__(self, first=1, strength=1.0):
        self.first, self.strength, self.count = first, strength, 0

    @property
    def is_off(self):
        return self.strength == 0

    def on_step_end(self, trainer, event):
        self.count += event.step >= self.first

    def report(self):
        return {"steps": self.count}


class WholeBatch(Callback):
    needs_whole_batch: ClassVar = True


class LastIsBest(Callback):
    """Sets all weights to 0 at the end, and keeps them."""

    def on_train_end(self, trainer):
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.zero_()
        trainer.keep_as_best(trainer.evaluate())


class Twice(Callback):
    """Adds the gradients of the batch once more."""

    def on_before_optimizer_step(self, step):
        before = [parameter.grad.clone() for parameter in step.model.parameters()]
        step.repeat_backward()
        self.ratios = [
            (parameter.grad / gradient)[gradient.abs() > 1e-6]
            for parameter, gradient in zip(step.model.parameters(), before, strict=True)
        ]


def config_with(name, **arguments):
    target = {"_target_": f"{__name__}.{name}", **arguments}
    config = small()
    config.callbacks = {"mine": target}
    return config


def test_reports_are_logged(tmp_path):
    """The values of a method are in the rows of metrics, in summary.json, and in the end table."""
    config = config_with("Late", first=3)
    summary = run_experiment(config, RunDir(tmp_path / "run"))
    assert summary["methods"] == {"mine/steps": summary["steps"] - 2}
    assert rows(RunDir(tmp_path / "run"), "mine/steps")[-1] == summary["steps"] - 3  # read before on_step_end


def test_inactive_method_fails_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="mine: was never active"):
        run_experiment(config_with("Late", first=1000), RunDir(tmp_path / "run"))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_method_that_is_off(tmp_path):
    summary = run_experiment(config_with("Late", first=1000, strength=0), RunDir(tmp_path / "run"))
    assert "methods" not in summary


@pytest.mark.parametrize(
    ("overrides", "rank", "message"),
    [
        (["trainer.gradient_accumulation_steps=2"], Rank(), "trainer.gradient_accumulation_steps=2"),
        (["trainer.auto_microbatch=true"], Rank(), "trainer.auto_microbatch=true"),
        ([], Rank(0, 2, 0, 2), "several processes"),
    ],
)
def test_methods_that_need_the_whole_batch(overrides, rank, message):
    config = small(*overrides)
    config.callbacks = {"mine": {"_target_": f"{__name__}.WholeBatch"}}
    with pytest.raises(InputError, match=f"callbacks.mine: needs all pairs of a batch at once.*{message}"):
        validate_config(config, rank)


def test_weights_of_the_end_can_be_kept(tmp_path):
    """``keep_as_best`` replaces checkpoints/best, and the run reports these weights."""
    summary = run_experiment(config_with("LastIsBest"), RunDir(tmp_path / "run"))
    assert summary["best"]["step"] == summary["steps"]
    assert summary["best"]["dev/loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_backward_can_be_repeated(tmp_path, accumulation):
    """Without dropout, a second backward pass doubles the gradients."""
    config = small()
    config.trainer.gradient_accumulation_steps = accumulation
    config.model.config_overrides |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    callback = Twice()
    Trainer(build_setup(config, RunDir(tmp_path)), [callback], start_time=0.0).fit()
    ratios = torch.cat(callback.ratios)
    assert torch.allclose(ratios, torch.full_like(ratios, 2.0), rtol=1e-2)
