"""The default recipe is that of the tutorial: a plain training loop gives the same losses."""

import pytest
from helpers import prepared
from tutorial_loop import train_and_compare, tutorial

STEPS = 50


def test_losses_equal_tutorial(tmp_path):
    """The losses of 50 steps equal those of the tutorial's loop."""
    setup = prepared(tmp_path / "run", *tutorial(STEPS))
    assert setup.model.encoder.config.hidden_dropout_prob > 0
    train_and_compare(setup, STEPS)


@pytest.mark.slow
def test_losses_equal_tutorial_with_bert_base(tmp_path):
    """The same for a model of the size of BERT base."""
    base = ("hidden_size=768", "num_hidden_layers=12", "num_attention_heads=12", "intermediate_size=3072")
    setup = prepared(tmp_path / "run", *tutorial(STEPS), *(f"model.config_overrides.{setting}" for setting in base))
    train_and_compare(setup, STEPS)
