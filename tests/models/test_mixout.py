"""Mixout: the mixed weights, what it changes in a model, and checkpoints that know nothing of it."""

import copy

import pytest
import torch
from helpers import prepared, rows, small, train
from safetensors.torch import load_file
from torch import nn

from afqmc.distributed.rank import Rank
from afqmc.inference.predictor import Predictor
from afqmc.models.mixout import Mixout, MixoutLinear
from afqmc.models.transforms import built_in_transforms
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.validation import validate_config
from afqmc.utils.errors import InputError

SHORT = ("trainer.max_steps=6", "model.mixout=0.4")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("mixout"))


def mixed(setup, p=0.4):
    model = copy.deepcopy(setup.model)
    Mixout(p).apply(model)
    return model


def test_mixed_weight():
    """In training, whole columns are replaced, with the paper's correction. In evaluation, the weight is unchanged."""
    layer, p = nn.Linear(50, 3), 0.4
    layer.__class__, layer.p, layer.initial_weight = MixoutLinear, p, torch.randn(3, 50)
    initial, trained, inputs = layer.initial_weight, layer.weight.detach(), torch.eye(50)
    weight = (layer(inputs) - layer.bias).detach().T
    is_replaced = (weight - initial).abs().amax(dim=0) < 1e-5
    assert 0 < is_replaced.sum() < 50
    chosen = torch.where(is_replaced, initial, trained)
    torch.testing.assert_close(weight, (chosen - p * initial) / (1 - p))
    assert torch.equal(layer.eval()(inputs), nn.functional.linear(inputs, trained, layer.bias))


def test_mean_of_mixed_weights_is_the_trained_weight():
    layer = nn.Linear(4, 3, bias=False)
    layer.__class__, layer.p, layer.initial_weight = MixoutLinear, 0.4, torch.randn(3, 4)
    with torch.no_grad():
        mean = torch.stack([layer(torch.eye(4)).T for _ in range(20_000)]).mean(dim=0)
    torch.testing.assert_close(mean, layer.weight.detach(), rtol=0, atol=0.1)


def test_only_the_encoder_is_changed(setup):
    """Linear layers of the encoder are mixed, its dropout is off, and the head and all names stay."""
    model = mixed(setup)
    linear = [name for name, module in setup.model.encoder.named_modules() if isinstance(module, nn.Linear)]
    assert [name for name, module in model.encoder.named_modules() if isinstance(module, MixoutLinear)] == linear
    assert {module.p for module in model.encoder.modules() if isinstance(module, nn.Dropout)} == {0.0}
    assert model.dropout.p == setup.model.dropout.p == 0.1
    assert type(model.classifier) is nn.Linear
    assert model.state_dict().keys() == setup.model.state_dict().keys()


def test_strength_zero_is_off():
    assert built_in_transforms(small().model) == {}


def test_frozen_encoder_is_refused(setup):
    """Frozen weights equal the initial ones, so there would be nothing to mix."""
    model = copy.deepcopy(setup.model)
    model.encoder.requires_grad_(False)
    with pytest.raises(InputError, match=r"model.mixout=0.4: the encoder has no linear layer that is trained"):
        Mixout(0.4).apply(model)


@pytest.mark.parametrize("more", [(), ("trainer.gradient_checkpointing=true", "performance.padding_free=true")])
def test_checkpoints_load_without_mixout(tmp_path, more):
    """The saved weights are the trained ones under the usual names; the distance from the initial ones is reported."""
    run = train(tmp_path / "run", *SHORT, "model.classifier_dropout=0.0", *more)
    assert min(rows(run, "mixout/distance")) > 0
    assert not any("initial" in name for name in load_file(run.best / "model.safetensors"))
    predictor = Predictor.load(run.path)
    assert not any(isinstance(module, MixoutLinear) for module in predictor.model.modules())
    assert predictor.evaluate(predictor.read_pairs(None, labelled=True)).metrics["accuracy"] == pytest.approx(
        rows(run, "dev/accuracy")[-1]
    )


@pytest.mark.parametrize(
    ("overrides", "rank", "message"),
    [
        (["model.mixout=1"], Rank(), "model.mixout=1.0: must be >= 0 and < 1"),
        (["model.mixout=-0.1"], Rank(), "model.mixout=-0.1: must be >= 0 and < 1"),
        (["model.mixout=0.5", "model._target_=torch.nn.Identity"], Rank(), "not with a custom model"),
        (["model.mixout=0.5", "distributed.strategy=fsdp"], Rank(0, 2, 0, 2), "model.mixout: not with distributed"),
    ],
)
def test_invalid_settings(overrides, rank, message):
    with pytest.raises(InputError) as error:
        validate_config(small(*overrides), rank)
    assert message in str(error.value)


def test_not_with_r_drop(tmp_path):
    """One mask serves the whole batch, so the two passes of R-Drop would not differ in the encoder."""
    with pytest.raises(InputError, match=r"R-Drop does not work with model.mixout"):
        run_experiment(small(*SHORT, "objective=r_drop"), RunDir(tmp_path / "run"))
