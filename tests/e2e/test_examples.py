"""The example plug-ins, each selected from YAML alone."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from equality import differences
from helpers import SMALL
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from afqmc.config import conf_dir, register, to_config
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import build_setup
from afqmc.runner.trainer import Trainer
from afqmc.training.callbacks.base import Callback
from afqmc.utils.errors import InputError

EXAMPLES = Path(__file__).parents[2] / "examples"
EACH = {
    "callback": ["callbacks=[gradient_noise]"],
    "objective": ["objective=generalized_cross_entropy"],
    "optimizer": ["optimizer=sign_sgd", "lr=1e-4"],
    "parameter groups": ["optimizer=adamw_head_lr"],
    "transform": ["+model.transforms.freeze._target_=plugins.freeze_embeddings.FreezeEmbeddings"],
    "model": ["model=bag_of_embeddings"],
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(sys.modules, "plugins.conflicting", sys.modules[__name__])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "plugins"]:
        del sys.modules[name]


def composed(*overrides):
    register()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        searched = f"hydra.searchpath=[file://{EXAMPLES / 'conf'}]"
        small = [word for word in SMALL if "config_overrides" not in word]
        return to_config(hydra_compose("config", [*small, searched, "trainer.max_steps=12", *overrides]))


@pytest.mark.parametrize("part", EACH)
def test_each_example_trains(tmp_path, part):
    summary = run_experiment(composed(*EACH[part]), RunDir(tmp_path / "run"))
    assert summary["steps"] == 12


class WithoutNoise(Callback):
    conflicts = ("callbacks.gradient_noise",)


class WithUnknownKey(Callback):
    conflicts = ("distributed.kind=ddp",)


class Stop(Callback):
    """Interrupts the run after some steps, as Ctrl-C does."""

    def on_step_end(self, trainer, event):
        if event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)


def test_resume_restores_callback_state(tmp_path):
    """The callback restores its own state: noise of step t does not depend on an interruption."""
    uninterrupted, ended = RunDir(tmp_path / "uninterrupted"), RunDir(tmp_path / "ended")
    config = composed(*EACH["callback"])
    run_experiment(config, uninterrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, ended, callbacks=[Stop()])
    run_experiment(config, ended, resume=True)  # states are restored by name, so one callback less does not matter
    assert differences(uninterrupted, ended) == []


def test_examples_have_an_effect(tmp_path):
    """Frozen embeddings stay as they were; the head's learning rate is ten times that of the encoder."""
    config = composed(*EACH["transform"], *EACH["parameter groups"])
    trainer = Trainer(build_setup(config, RunDir(tmp_path)), [], start_time=0.0)
    embeddings = trainer.model.encoder.get_input_embeddings().weight
    before = embeddings.detach().clone()
    trainer.fit()
    assert torch.equal(embeddings, before)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.step.optimizer.param_groups
    rates = {names[id(parameter)]: group["initial_lr"] for group in groups for parameter in group["params"]}
    head = {name for name in rates if name.startswith("classifier.")}
    assert {rates[name] for name in head} == {10 * config.lr}
    assert {rates[name] for name in {*rates} - head} == {config.lr}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["callbacks=[gradient_noise]", "callbacks.gradient_noise.eta=-1"],
            "callbacks.gradient_noise.eta=-1: must be > 0",
        ),
        (["callbacks=[gradient_noise]", "+callbacks.gradient_noise.gama=1"], "gama: .*no such argument.*'gamma'"),
        (
            ["callbacks=[gradient_noise]", "distributed=fsdp"],
            "callbacks.gradient_noise: not with distributed.strategy=fsdp",
        ),
        (
            ["callbacks=[gradient_noise]", "+callbacks.other._target_=plugins.conflicting.WithoutNoise"],
            "callbacks.other: not with callbacks.gradient_noise",
        ),
        (
            ["+callbacks.other._target_=plugins.conflicting.WithUnknownKey"],
            "callbacks.other: conflicts: there is no key 'distributed.kind'",
        ),
        (["objective=generalized_cross_entropy", "objective.q=2"], "objective.q=2: must be > 0 and <= 1"),
        (
            ["+callbacks.mine._target_=torch.nn.Linear"],
            "callbacks.mine._target_=torch.nn.Linear: must be a subclass of",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, overrides, message):
    monkeypatch.setattr("afqmc.runner.tasks.load_dataset", None)
    with pytest.raises(InputError, match=message):
        run_experiment(composed(*overrides), RunDir(tmp_path / "run"))
