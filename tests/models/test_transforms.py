"""Model transforms: applied before the optimizer is built, merged into the weights that are saved."""

import pytest
import torch
from helpers import small
from safetensors.torch import load_file

from afqmc.inference.predictor import Predictor
from afqmc.models.transforms import ModelTransform, build_transforms
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.utils.errors import InputError

THIS = __name__


class Freeze(ModelTransform):
    """Trains the head alone."""

    def apply(self, model):
        for parameter in model.encoder.parameters():
            parameter.requires_grad_(False)


class Shift(torch.nn.Module):
    """A linear layer with a trainable shift of its bias."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.shift = linear, torch.nn.Parameter(torch.zeros(linear.out_features))

    def forward(self, states):
        return self.linear(states) + self.shift


class AddShift(ModelTransform):
    """Adds a weight to the head that the model without the transform does not have."""

    def apply(self, model):
        model.classifier = Shift(model.classifier)

    def merge(self, model, state):
        merged = {
            name.replace("classifier.linear.", "classifier."): value
            for name, value in state.items()
            if name != "classifier.shift"
        }
        merged["classifier.bias"] = state["classifier.linear.bias"] + state["classifier.shift"]
        return merged


def run(directory, transform, *more):
    config = small(f"+model.transforms.mine._target_={THIS}.{transform}", "trainer.max_steps=6", *more)
    run_dir = RunDir(directory)
    run_experiment(config, run_dir)
    return run_dir


def test_frozen_encoder_keeps_its_weights(tmp_path):
    """Parameters frozen by a transform are not changed by training."""
    few, many = (run(tmp_path / name, "Freeze", f"trainer.eval_steps={name}") for name in ("2", "6"))
    weights = [load_file(run_dir.best / "model.safetensors") for run_dir in (few, many)]
    encoder = [name for name in weights[0] if not name.startswith("classifier.")]
    assert encoder
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in encoder)


def test_merged_weights_load_without_the_transform(tmp_path):
    """Merged weights give the recorded logits, up to rounding, and load without the transform."""
    run_dir = run(tmp_path / "run", "AddShift")
    assert "classifier.bias" in load_file(run_dir.best / "model.safetensors")
    predictor = Predictor.load(run_dir.path, trust=True)
    assert predictor.evaluate(predictor.read_pairs(None, labelled=True)).metrics


class AddShiftWithoutMerge(ModelTransform):
    def apply(self, model):
        AddShift().apply(model)


class FreezeAll(ModelTransform):
    def apply(self, model):
        model.requires_grad_(False)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            "AddShiftWithoutMerge",
            r"AddShiftWithoutMerge adds or removes weights \(classifier.bias, .*must override merge",
        ),
        ("FreezeAll", "FreezeAll leaves no weight to train"),
    ],
)
def test_unusable_transforms(tmp_path, transform, message):
    """A transform whose result cannot be saved or trained is refused before training."""
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", transform)


def test_other_class_is_rejected():
    """A target that is not a ModelTransform is rejected."""
    with pytest.raises(InputError, match="must be a subclass of afqmc.models.transforms.ModelTransform"):
        build_transforms({"mine": {"_target_": "torch.nn.Identity"}})
