"""LoRA: only the adapter and the head are trained; the saved weights are merged, and the adapter is kept."""

import numpy as np
import pytest
import torch
from helpers import prepared, small, summary, train
from plain_training import PLAIN, plain_losses, trainer_losses
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

from afqmc.checkpoint.safety import check_untrusted
from afqmc.inference.predictor import Predictor
from afqmc.models import lora
from afqmc.models.config import LoraConfig, ModelConfig
from afqmc.models.transforms import built_in_transforms
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.preflight import preflight
from afqmc.utils.errors import InputError

peft = pytest.importorskip("peft", reason="needs the extra lora")

LORA = ("model.lora.r=2", "model.lora.alpha=8", "model.lora.targets=[query,value]", "lr=1e-2")


class PlainLora(nn.Module):
    """A linear layer W with a change alpha / r * B A."""

    def __init__(self, linear, a, b, scale):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), scale
        self.a, self.b = (nn.Parameter(tensor.detach().clone()) for tensor in (a, b))

    def forward(self, states):
        return self.linear(states) + self.scale * states @ self.a.T @ self.b.T


def test_losses_equal_plain_loop(tmp_path):
    """30 steps give the losses of a hand-written layer and loop, with the same A at the start."""
    setup = prepared(tmp_path / "run", *PLAIN, *LORA)
    bare = prepared(tmp_path / "bare", *PLAIN, "lr=1e-2")  # the same seed, so the same weights
    bare.model.encoder.requires_grad_(False)
    for name, module in [*setup.model.encoder.named_modules()]:
        if hasattr(module, "lora_A"):
            parent, _, last = name.rpartition(".")
            owner = bare.model.encoder.get_submodule(parent)
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            assert not b.any()
            setattr(owner, last, PlainLora(getattr(owner, last), a, b, 8 / 2))

    def optimizer(model):
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-2)

    plain = plain_losses(setup, optimizer, model=bare.model)
    np.testing.assert_allclose(trainer_losses(setup), plain, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with LoRA on a pretrained model, and the directory of that model."""
    directory = tmp_path_factory.mktemp("lora")
    base = train(directory / "base", "trainer.max_steps=1").best
    config = small(*LORA, "model.mimetic_init=false", "model.from_scratch=false", "epochs=1")
    config.model.name_or_path, config.model.config_overrides = str(base), {}
    run_dir = RunDir(directory / "run")
    run_experiment(config, run_dir)
    return run_dir, base


def test_saved_weights_are_merged(run):
    """Only the targets and the head have other weights than the base; they load without the adapter."""
    run_dir, base = run
    before, after = (load_file(path / "model.safetensors") for path in (base, run_dir.best))
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    targets = {f"bert.encoder.layer.{i}.attention.self.{name}.weight" for i in (0, 1) for name in ("query", "value")}
    assert changed == {*targets, "classifier.weight", "classifier.bias"}
    predictor = Predictor.load(run_dir.path)
    assert predictor.evaluate(predictor.read_pairs(None, labelled=True)).metrics["loss"] == pytest.approx(
        summary(run_dir)["best"]["dev/loss"], abs=1e-4
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, for a property that peft reads
def test_adapter_loads_with_peft(run):
    """Base and adapter, loaded with ``peft``, have the weights of the merged encoder."""
    run_dir, base = run
    encoder = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), run_dir.best / "adapter")
    merged = encoder.merge_and_unload().state_dict()
    saved = load_file(run_dir.best / "model.safetensors")
    for name, value in saved.items():
        if name.startswith("bert."):
            assert torch.allclose(merged[name.removeprefix("bert.")], value, atol=1e-6), name


def test_adapter_passes_the_safety_checks(run):
    check_untrusted(run[0].best, own_code=False)


def test_report(run):
    """The trainable parameters are A and B of four layers, and the classifier."""
    methods = summary(run[0])["methods"]
    assert methods["lora/adapter_parameters"] == 4 * 2 * (32 + 32)
    assert methods["lora/trainable_parameters"] == 4 * 2 * (32 + 32) + 2 * 32 + 2


def test_all_linear_layers_are_the_default(tmp_path):
    """Without targets, all linear layers of the encoder's layers are changed; the pooler is trained in full."""
    setup = prepared(tmp_path, "model.lora.r=1", "model.pooling=pooler_output")
    names = {name for name, parameter in setup.model.named_parameters() if parameter.requires_grad}
    assert len([name for name in names if "lora_A" in name]) == 2 * 6
    assert {name for name in names if "lora" not in name} == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.lora.targets=[quer]"],
            "model.lora.targets: no linear layer is called quer; did you mean 'query'?",
        ),
        (["model.lora.targets=[zzz]"], "no linear layer is called zzz; allowed: attention.output.dense, "),
        (["model.freeze=[embeddings]"], "model.lora.r=2: not with model.freeze"),
        (["model.reinit_layers=1"], "model.lora.r=2: not with model.reinit_layers"),
    ],
)
def test_refused_before_training(overrides, message):
    assert message in preflight([small("model.lora.r=2", *overrides)])[0]


@pytest.mark.parametrize("rank", [None, 0])
def test_off(rank):
    assert built_in_transforms(ModelConfig(lora=LoraConfig(r=rank))) == {}


def test_missing_package(monkeypatch):
    """Without ``peft``, the message names the extra."""
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model.lora.r=2: needs peft: pip install 'afqmc\[lora\]'"):
        built_in_transforms(ModelConfig(lora=LoraConfig(r=2)))
