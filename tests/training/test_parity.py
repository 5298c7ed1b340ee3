"""The default recipe is that of the tutorial: a plain training loop gives the same losses."""

import copy

import numpy as np
import pytest
from helpers import prepared, rows
from plain_loop import PLAIN, plain_losses, shuffled_batches

from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.trainer import Trainer

STEPS = 50
TUTORIAL = (
    "lr=1e-5",
    "batch_size=4",
    f"trainer.max_steps={STEPS}",
    "dataset.max_train_samples=300",
    *PLAIN,
)


def compare(setup):
    state, pairs = copy.deepcopy(setup.model.state_dict()), setup.data.train
    columns = [*zip(pairs.sentence1, pairs.sentence2, pairs.labels, strict=True)]
    batches = shuffled_batches(columns, setup.config.seed, 4, STEPS)
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    plain = plain_losses(state, setup, batches)
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-6)


def test_losses_equal_tutorial(tmp_path):
    """The losses of 50 steps equal those of the tutorial's loop."""
    setup = prepared(tmp_path / "run", *TUTORIAL)
    assert setup.model.encoder.config.hidden_dropout_prob > 0
    compare(setup)


@pytest.mark.slow
def test_losses_equal_tutorial_with_bert_base(tmp_path):
    """The same for a model of the size of BERT base."""
    base = ("hidden_size=768", "num_hidden_layers=12", "num_attention_heads=12", "intermediate_size=3072")
    setup = prepared(tmp_path / "run", *TUTORIAL, *(f"model.config_overrides.{setting}" for setting in base))
    compare(setup)
