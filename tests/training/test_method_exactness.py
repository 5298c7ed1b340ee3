"""Conventions of the methods in conf/callbacks: off is off, and microbatches do not matter."""

import pytest
from equality import differences
from helpers import small, train
from tutorial_loop import largest_difference

from afqmc.run_dir import RunDir
from afqmc.runner.setup import build_setup
from afqmc.runner.trainer import Trainer
from afqmc.training.callbacks.factory import build_callbacks

STRENGTHS = {"ema": "decay=0", "soup": "k=1", "fgm": "epsilon=0", "pgd": "epsilon=0", "awp": "gamma=0"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain", "epochs=1")


@pytest.mark.parametrize("name", STRENGTHS)
def test_strength_0_is_off(plain, tmp_path, name):
    """With strength 0, every bit is that of a run without the method."""
    run = train(tmp_path / "run", "epochs=1", f"callbacks=[{name}]", f"callbacks.{name}.{STRENGTHS[name]}")
    assert differences(plain, run) == []


@pytest.mark.parametrize("name", STRENGTHS)
def test_microbatches_do_not_matter(tmp_path, name):
    """4 microbatches give the weights of one, within rounding; without dropout, whose masks differ."""
    results = []
    for count in (1, 4):
        config = small(
            f"callbacks=[{name}]", "trainer.max_steps=8", "trainer.eval_steps=4",
            f"trainer.gradient_accumulation_steps={count}", "optimizer=sgd", "lr=0.05",
        )  # fmt: skip
        config.model.config_overrides |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        methods = build_callbacks(config.callbacks)
        trainer = Trainer(build_setup(config, RunDir(tmp_path)), [], start_time=0.0, methods=methods)
        trainer.fit()
        with trainer._evaluation_weights():
            results.append({key: tensor.detach().clone() for key, tensor in trainer.model.named_parameters()})
    assert largest_difference(*results) < 2e-6
