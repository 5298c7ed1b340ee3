"""Learning rates per layer: ``optimizer.layer_decay`` and ``optimizer.head_lr``."""

import numpy as np
import pytest
import torch
from helpers import prepared, rows, small, train
from plain_training import PLAIN, plain_losses, trainer_losses
from torch import nn
from transformers import AlbertConfig, AlbertModel

from afqmc.config import compose
from afqmc.distributed.rank import Rank
from afqmc.models.config import Pooling
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.runner.validation import validate_config
from afqmc.training.optim import build_optimizer, build_scheduler, check_parameter_groups
from afqmc.training.parameter_groups import build_parameter_groups, describe_groups
from afqmc.utils.errors import InputError

DECAYED = ("optimizer.layer_decay=0.5", "optimizer.head_lr=2e-3", "lr=1e-3")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("setup"), *DECAYED, "model.pooling=pooler_output")


def peak_rates(optimizer, model):
    """Return the learning rate of each parameter by its name."""
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: rates[id(parameter)] for name, parameter in model.named_parameters()}


def test_rates_by_layer(setup):
    """Each layer has ``layer_decay`` times the rate of the one above; pooler and classifier have ``head_lr``."""
    optimizer = build_optimizer(setup.config.optimizer, setup.model, 1e-3)
    rates = peak_rates(optimizer, setup.model)
    for name, rate in rates.items():
        expected = {"bert.embeddings": 1e-3 / 4, "bert.encoder.layer.0": 1e-3 / 2, "bert.encoder.layer.1": 1e-3}
        assert rate == next((value for prefix, value in expected.items() if name.startswith(prefix)), 2e-3), name
    assert describe_groups(optimizer)[0][0] == "embeddings"
    assert [row[0] for row in describe_groups(optimizer)][-2:] == ["pooler", "classifier"]
    vectors = [group for group in optimizer.param_groups if all(p.ndim < 2 for p in group["params"])]
    assert {group["weight_decay"] for group in vectors} == {0.0}


@pytest.mark.parametrize("schedule", ["linear", "one_cycle"])
def test_schedules_scale_all_groups(setup, schedule):
    """The ratio of the rates stays the same in all steps."""
    optimizer = build_optimizer({"_target_": "torch.optim.SGD", "layer_decay": 0.5}, setup.model, 1e-3)
    scheduler = build_scheduler(compose([f"scheduler={schedule}"]).scheduler, optimizer, 20, 1e-3)
    for _ in range(19):
        optimizer.step()
        scheduler.step()
        top, bottom = (optimizer.param_groups[index]["lr"] for index in (0, 4))
        assert bottom == pytest.approx(top / 4)


@pytest.mark.parametrize("values", [{}, {"layer_decay": None, "head_lr": None}, {"layer_decay": 1.0}])
def test_off_has_the_default_groups(values):
    model = nn.Linear(2, 2)
    (matrix, vector) = build_parameter_groups(values)(model, 0.1, True)
    assert matrix == {"params": [model.weight]}
    assert vector == {"params": [model.bias], "weight_decay": 0.0}


def test_losses_equal_plain_loop(tmp_path):
    """30 steps give the losses of a hand-written loop with one group per layer."""
    setup = prepared(tmp_path, *PLAIN, *DECAYED)

    def optimizer(model):
        rates = {".layer.1.": 1e-3, ".layer.0.": 5e-4, ".embeddings.": 2.5e-4, "classifier.": 2e-3}
        groups = []
        for name, parameter in model.named_parameters():
            rate = next(value for part, value in rates.items() if part in name)
            groups.append({"params": [parameter], "lr": rate, "weight_decay": 0.01 if parameter.ndim > 1 else 0.0})
        return torch.optim.AdamW(groups, lr=1e-3)

    plain = plain_losses(setup, optimizer)
    np.testing.assert_allclose(trainer_losses(setup), plain, rtol=0, atol=1e-6)


def test_logged_rate_and_report(tmp_path, capsys):
    """``train/lr`` is the rate that belongs to ``lr``; the table and the report show those of the groups."""
    run_dir = train(tmp_path, *DECAYED, "model.freeze=[encoder]", "epochs=1", "scheduler=constant")
    assert rows(run_dir, "train/lr") == pytest.approx([1e-3] * 12)
    assert rows(run_dir, "optimizer/lowest_lr")[0] == pytest.approx(1e-3 / 4)
    assert rows(run_dir, "optimizer/highest_lr")[0] == 2e-3
    assert "0.00025" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.layer_decay=0"], "optimizer.layer_decay=0: must be a number > 0 and <= 1"),
        (["optimizer.layer_decay=1.5"], "optimizer.layer_decay=1.5: must be a number > 0 and <= 1"),
        (["optimizer.layer_decay=a"], "optimizer.layer_decay=a: must be a number"),
        (["optimizer.head_lr=-1"], "optimizer.head_lr=-1: must be a number > 0"),
        (
            ["optimizer.head_lr=1e-3", "+optimizer.param_groups._target_=plugins.head_lr.head_lr"],
            "optimizer.head_lr=0.001: not with optimizer.param_groups",
        ),
    ],
)
def test_invalid_values(overrides, message):
    with pytest.raises(InputError, match=message):
        validate_config(small(*overrides), Rank())


def test_models_without_known_layers():
    """A custom model, and an encoder whose layers share weights, are refused by name."""
    config = AlbertConfig(vocab_size=20, embedding_size=4, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    albert = CrossEncoder(AlbertModel(config), 2, Pooling.mean, None)
    for model, name in ((albert, "albert"), (nn.Linear(2, 2), "custom model")):
        with pytest.raises(InputError, match=f"optimizer.layer_decay=0.5: .*{name}"):
            check_parameter_groups({"_target_": "torch.optim.SGD", "layer_decay": 0.5}, model, 0.1)
