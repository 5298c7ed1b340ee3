"""The examples of parts that a user plugs in, each from YAML alone."""

import os
import signal
import sys
from pathlib import Path

import pytest
from equality import differences
from helpers import SMALL
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from afqmc.config import conf_dir, register, to_config
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.training.callbacks.base import Callback
from afqmc.utils.errors import InputError

EXAMPLES = Path(__file__).parents[1] / "examples"
EACH = {
    "callback": ["callbacks=[gradient_noise]"],
    "objective": ["objective=generalized_cross_entropy"],
    "optimizer": ["optimizer=sign_sgd", "lr=1e-4"],
    "model": ["model=bag_of_embeddings"],
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
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


class Stop(Callback):
    """Interrupts the run after some steps, as Ctrl-C does."""

    def on_step_end(self, trainer, event):
        if event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_resumed_run_has_the_callbacks_bits(tmp_path):
    """The callback restores its own state: noise of step t does not depend on an interruption."""
    whole, ended = RunDir(tmp_path / "whole"), RunDir(tmp_path / "ended")
    config = composed(*EACH["callback"])
    run_experiment(config, whole, callbacks=[Callback()])
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, ended, callbacks=[Stop()])
    run_experiment(config, ended, resume=True, callbacks=[Callback()])
    assert differences(whole, ended) == []


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
        (["objective=generalized_cross_entropy", "objective.q=2"], "objective.q=2: must be > 0 and <= 1"),
        (["+callbacks.mine._target_=torch.nn.Linear"], "callbacks.mine: .*in_features"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, overrides, message):
    monkeypatch.setattr("afqmc.runner.setup.load_dataset", None)
    with pytest.raises(InputError, match=message):
        run_experiment(composed(*overrides), RunDir(tmp_path / "run"))
