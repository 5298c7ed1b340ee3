"""Freezing and re-initialising layers: ``model.freeze`` and ``model.reinit_layers``."""

import numpy as np
import pytest
import torch
from helpers import prepared, small, summary, train
from plain_training import PLAIN, plain_losses, trainer_losses
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from afqmc.models.config import ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.layers import named_layers, select_layers
from afqmc.models.transforms import all_transforms, built_in_transforms
from afqmc.run_dir import RunDir
from afqmc.runner.preflight import preflight
from afqmc.runner.setup import build_setup
from afqmc.utils.errors import InputError

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 4,
    "dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 16, "pad_token_id": 0,
}  # fmt: skip


def cross_encoder(kind):
    config = AutoConfig.for_model(kind, **SIZES)
    return CrossEncoder(AutoModel.from_config(config).float(), 2, Pooling.mean, None)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "ernie", "deberta-v2", "modernbert", "distilbert"])
def test_layers_of_architectures(kind):
    """All parameters belong to a layer: embeddings, four layers and the classifier; some have a pooler."""
    model = cross_encoder(kind)
    layers = named_layers(model, "key")
    assert [name for name in layers if name != "pooler"] == ["embeddings", "0", "1", "2", "3", "classifier"]
    assert sum(map(len, layers.values())) == len([*model.parameters()])
    assert len(layers["1"]) == len(layers["2"]) > 5


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["embeddings", "0-2"], ["embeddings", "0", "1", "2"]),
        ([3, "1-1"], ["1", "3"]),
        (["encoder"], ["0", "1", "2", "3"]),
        (["pooler"], ["pooler"]),
        (["4"], "key: 4: there is no such layer; this model has embeddings, pooler, encoder .* the layers 0 to 3"),
        (["2-4"], "2-4: there is no such layer"),
        (["2-1"], "2-1: there is no such layer"),
        (["head"], "head: there is no such layer"),
        (["classifier"], "classifier: there is no such layer"),
    ],
)
def test_selection(names, expected):
    layers = named_layers(cross_encoder("bert"), "key")
    if isinstance(expected, list):
        assert select_layers(layers, names, "key") == expected
    else:
        with pytest.raises(InputError, match=expected):
            select_layers(layers, names, "key")


def test_frozen_layers_keep_their_weights(tmp_path):
    """Frozen layers keep their weights, and the number of trainable parameters is reported."""
    runs = [train(tmp_path / n, "model.freeze=[embeddings,0]", f"trainer.max_steps={n}") for n in ("1", "3")]
    weights = [load_file(run.best / "model.safetensors") for run in runs]
    same = {name for name in weights[0] if torch.equal(weights[0][name], weights[1][name])}
    assert same == {name for name in weights[0] if ".embeddings." in name or ".layer.0." in name}
    figures = summary(runs[0])
    assert figures["methods"]["freeze/trainable_parameters"] == figures["parameters"]
    frozen = sum(weights[0][name].numel() for name in same)
    assert figures["methods"]["freeze/frozen_parameters"] == frozen


def test_frozen_losses_equal_plain_loop(tmp_path):
    """30 steps give the losses of a hand-written loop that trains the other layers only."""
    setup = prepared(tmp_path, *PLAIN, "model.freeze=[embeddings,0]", "model.reinit_layers=1", "lr=1e-3")

    def optimizer(model):
        parameters = [p for n, p in model.named_parameters() if ".layer.1." in n or n.startswith("classifier.")]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-3)

    plain = plain_losses(setup, optimizer)
    np.testing.assert_allclose(trainer_losses(setup), plain, rtol=0, atol=1e-6)


def test_reinitialised_layers(tmp_path):
    """The top layers and the pooler get the weights of a new model, by the seed; the others keep theirs."""
    pretrained = train(tmp_path / "run", "model.pooling=pooler_output", "trainer.max_steps=1").best
    states = {}
    for name, more in {"off": [], "a": ["model.reinit_layers=1"], "b": ["model.reinit_layers=1", "seed=1"]}.items():
        config = small("model.mimetic_init=false", "model.from_scratch=false", "model.pooling=pooler_output", *more)
        config.model.name_or_path, config.model.config_overrides = str(pretrained), {}
        setup = build_setup(config, RunDir(tmp_path / name))
        states[name] = setup.model.state_dict()
    changed = {name for name in states["a"] if not torch.equal(states["a"][name], states["off"][name])}
    drawn = {name for name in changed if name.endswith("weight") and "LayerNorm" not in name}
    assert all(".layer.1." in name or ".pooler." in name for name in changed), changed
    assert len(drawn) == 7
    for name in drawn:
        assert states["a"][name].std() == pytest.approx(0.02, rel=0.1), name
        assert not torch.equal(states["a"][name], states["b"][name])
    head = [states[name]["classifier.weight"] for name in ("a", "off")]
    assert torch.equal(*head)
    assert setup.transforms["reinit_layers"].report()["reinitialised_parameters"] > 5000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.freeze=[9]", "model.freeze=[9]: 9: there is no such layer"),
        ("model.reinit_layers=3", "model.reinit_layers=3: this model has 2 layers"),
    ],
)
def test_refused_before_a_sweep(override, message):
    assert message in preflight([small(override)])[0]


def test_off_is_no_transform():
    assert built_in_transforms(ModelConfig()) == {}


def test_name_of_a_built_in_transform_is_taken():
    config = ModelConfig(
        freeze=["encoder"], transforms={"freeze": {"_target_": "afqmc.models.transforms.ModelTransform"}}
    )
    with pytest.raises(InputError, match="model.transforms.freeze: has the name of model.freeze"):
        all_transforms(config)
