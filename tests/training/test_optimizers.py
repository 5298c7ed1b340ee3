"""Muon, StableAdamW and schedule-free AdamW: equal to a hand-written loop, with the right weights evaluated."""

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers import prepared, rows, small, summary, train
from plain_training import PLAIN, plain_losses, trainer_losses
from safetensors.torch import load_file
from torch.optim import Optimizer

from afqmc.checkpoint.serialization import read_state
from afqmc.distributed.rank import Rank
from afqmc.models.layers import hidden_matrices
from afqmc.runner.preflight import preflight
from afqmc.runner.validation import validate_config
from afqmc.training.muon import Muon
from afqmc.training.optim import build_optimizer
from afqmc.utils.errors import InputError

LR = 1e-3


def by_decay(named):
    """Return groups with weight decay 0.01 for matrices and 0 for vectors."""
    parameters = [parameter for _, parameter in named]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class TwoOptimizers(Optimizer):
    """PyTorch's Muon and AdamW side by side."""

    def __init__(self, model):
        matrices = [p for n, p in model.named_parameters() if ".layer." in n and p.ndim == 2]
        others = [(n, p) for n, p in model.named_parameters() if all(p is not matrix for matrix in matrices)]
        self.muon = torch.optim.Muon(matrices, lr=LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(by_decay(others), lr=LR)
        super().__init__(model.parameters(), {"lr": LR})

    def step(self):
        for inner in (self.muon, self.adamw):
            for group in inner.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            inner.step()


class PlainStableAdamW(Optimizer):
    """Algorithm 2 of Wortsman et al. 2023, arXiv:2304.13013."""

    def __init__(self, model):
        super().__init__(by_decay(model.named_parameters()), {"lr": LR})

    @torch.no_grad()
    def step(self, betas=(0.9, 0.99), eps=1e-8):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                t = state["t"] = state.get("t", 0) + 1
                first, second = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in betas)
                state["v"] = first * state.get("v", 0) + (1 - first) * p.grad
                state["u"] = second * state.get("u", 0) + (1 - second) * p.grad**2
                rms = (p.grad**2 / state["u"].clamp(min=eps**2)).mean().sqrt()
                lr = group["lr"] / max(1, rms)
                p.mul_(1 - lr * group["weight_decay"]).sub_(lr * state["v"] / (state["u"].sqrt() + eps))


class PlainScheduleFree(Optimizer):
    """Algorithm 1 of Defazio et al. 2024, arXiv:2405.15682, with x, y and z; constant learning rate."""

    def __init__(self, model):
        super().__init__(by_decay(model.named_parameters()), {"lr": LR})

    @torch.no_grad()
    def step(self, beta1=0.9, beta2=0.999, eps=1e-8):
        for group in self.param_groups:
            for y in group["params"]:
                state = self.state[y]
                if not state:
                    state.update(t=0, x=y.clone(), z=y.clone(), v=torch.zeros_like(y))
                t = state["t"] = state["t"] + 1
                state["v"] = beta2 * state["v"] + (1 - beta2) * y.grad**2
                denominator = (state["v"] / (1 - beta2**t)).sqrt() + eps
                state["z"] = state["z"] - LR * (y.grad / denominator + group["weight_decay"] * y)
                state["x"] = (1 - 1 / t) * state["x"] + state["z"] / t
                y.copy_((1 - beta1) * state["z"] + beta1 * state["x"])


PLAIN_OPTIMIZERS = {
    "muon": (TwoOptimizers, ()),
    "stable_adamw": (PlainStableAdamW, ()),
    "schedule_free": (PlainScheduleFree, ("scheduler=constant",)),
}


def skip_without_package(name):
    if name != "muon":
        pytest.importorskip("pytorch_optimizer", reason="needs the extra optimizers")


@pytest.mark.parametrize("name", PLAIN_OPTIMIZERS)
def test_losses_equal_plain_loop(tmp_path, name):
    """30 steps give the losses of a hand-written loop."""
    skip_without_package(name)
    plain_optimizer, overrides = PLAIN_OPTIMIZERS[name]
    setup = prepared(tmp_path, *PLAIN, f"optimizer={name}", f"lr={LR}", *overrides)
    plain = plain_losses(setup, plain_optimizer, "constant" if overrides else "linear")
    np.testing.assert_allclose(trainer_losses(setup), plain, rtol=0, atol=1e-6)


NO_DROPOUT = tuple(
    f"model.config_overrides.{name}=0" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
)
METHODS = {
    "layers": ("optimizer.layer_decay=0.8", "model.freeze=[embeddings]", "model.reinit_layers=1"),
    "lora": ("model.lora.r=2",),
    "muon": ("optimizer=muon",),
    "stable_adamw": ("optimizer=stable_adamw",),
    "schedule_free": ("optimizer=schedule_free", "scheduler=constant"),
}


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_gives_the_same_losses(tmp_path, method):
    """Losses do not depend on the number of microbatches."""
    if method not in ("layers", "muon"):
        pytest.importorskip("peft" if method == "lora" else "pytorch_optimizer", reason="needs an extra")
    overrides = (*METHODS[method], *NO_DROPOUT, f"lr={LR}", "trainer.max_steps=8")
    losses = []
    for count in (1, 3):
        division = f"trainer.gradient_accumulation_steps={count}"
        losses.append(trainer_losses(prepared(tmp_path / str(count), *overrides, division)))
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-6)


def test_matrices_for_muon(tmp_path):
    """Muon gets the matrices of the encoder's layers; its state is saved and loaded as one."""
    setup = prepared(tmp_path, "optimizer=muon", "optimizer.layer_decay=0.5", "model.pooling=pooler_output")
    optimizer = build_optimizer(setup.config.optimizer, setup.model, LR)
    assert isinstance(optimizer, Muon)
    for_muon = {id(p) for group in optimizer.param_groups if "momentum" in group for p in group["params"]}
    names = {name for name, parameter in setup.model.named_parameters() if id(parameter) in for_muon}
    assert len(names) == len(hidden_matrices(setup.model, "key")) == 12
    assert all(".encoder.layer." in name and name.endswith(".weight") for name in names)
    rates = {group["layer"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"embeddings": LR / 4, "0": LR / 2, "1": LR, "pooler": LR, "classifier": LR}
    for parameter in setup.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    assert len(saved["state"]) == len([*setup.model.parameters()])
    weights = [parameter.clone() for parameter in setup.model.parameters()]
    optimizer.step()
    expected = [parameter.clone() for parameter in setup.model.parameters()]
    with torch.no_grad():
        for parameter, weight in zip(setup.model.parameters(), weights, strict=True):
            parameter.copy_(weight)
    again = build_optimizer(setup.config.optimizer, setup.model, LR)
    again.load_state_dict(saved)
    again.step()
    assert all(torch.equal(*pair) for pair in zip(setup.model.parameters(), expected, strict=True))


def test_muon_report(tmp_path):
    run_dir = train(tmp_path, "optimizer=muon", "trainer.max_steps=2")
    assert summary(run_dir)["methods"] == {"optimizer/muon_parameters": 2 * (4 * 32 * 32 + 2 * 32 * 64)}


def test_average_is_evaluated_and_saved(tmp_path):
    """The saved weights are the average x; the checkpoint to resume from has the weights y and z."""
    skip_without_package("schedule_free")
    run_dir = train(tmp_path, "optimizer=schedule_free", "scheduler=constant", "trainer.max_steps=5", f"lr={LR}")
    best, last = (
        load_file(run_dir.best / "model.safetensors"),
        read_state(run_dir.path / "checkpoints/last")["training"],
    )
    groups = last["optimizer"]["param_groups"]
    assert all(group["train_mode"] for group in groups)
    indices = [index for group in groups for index in group["params"]]
    z = {index: last["optimizer"]["state"][index]["z"] for index in indices}
    assert len(z) == len(best)
    name = "classifier.bias"  # the only tensor of its shape
    y = last["model"][name]
    (z_of_name,) = [value for value in z.values() if value.shape == y.shape]
    x = y.lerp(z_of_name, 1 - 1 / 0.9)
    assert torch.allclose(best[name], x, rtol=0, atol=1e-7)
    assert not torch.allclose(best[name], y, rtol=0, atol=1e-5)
    assert summary(run_dir)["methods"]["averaged_weights/average_distance"] > 1e-3


def test_evaluations_do_not_change_the_training(tmp_path):
    """More evaluations give the same losses, bit for bit."""
    skip_without_package("schedule_free")
    common = ("optimizer=schedule_free", "scheduler=constant", "trainer.max_steps=6", f"lr={LR}")
    runs = [train(tmp_path / steps, *common, f"trainer.eval_steps={steps}") for steps in ("1", "6")]
    assert len(rows(runs[0], "dev/loss")) == 6
    assert rows(runs[0], "train/loss") == rows(runs[1], "train/loss")


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "one_cycle"])
def test_schedule_free_needs_constant_rate(scheduler):
    skip_without_package("schedule_free")
    with pytest.raises(InputError, match="averages its weights in place of a schedule; use scheduler=constant"):
        validate_config(small("optimizer=schedule_free", f"scheduler={scheduler}"), Rank())


def test_own_optimizer_with_two_modes(plug):
    """An optimizer of the user that has ``train`` and ``eval`` is treated alike."""
    name = plug(
        "import torch\nclass Switching(torch.optim.SGD):\n    def train(self): pass\n    def eval(self): pass\n"
    )
    config = small()
    config.optimizer = {"_target_": f"{name}.Switching"}
    with pytest.raises(InputError, match="Switching averages its weights"):
        validate_config(config, Rank())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer=muon", "optimizer.momentum=-1"], "optimizer.momentum=-1: afqmc.training.muon.Muon rejects it"),
        (["optimizer=muon", "optimizer.ns_steps=a"], "optimizer.ns_steps=a"),
        (["optimizer=muon", "+optimizer.hidden_matrices=1"], "optimizer.hidden_matrices: is passed by afqmc itself"),
        (["optimizer=muon", "optimizer.weight_decay=-1"], "optimizer.weight_decay=-1"),
        pytest.param(
            ["optimizer=schedule_free", "scheduler=constant", "callbacks=[ema]"],
            "optimizer: not with callbacks.ema",
            marks=pytest.mark.skipif(find_spec("pytorch_optimizer") is None, reason="needs an extra"),
        ),
    ],
)
def test_invalid_arguments(overrides, message):
    with pytest.raises(InputError, match=message):
        validate_config(small(*overrides), Rank())


@pytest.mark.parametrize("name", ["muon", "stable_adamw"])
def test_not_with_sharded_weights(name):
    skip_without_package(name)
    with pytest.raises(InputError, match="optimizer: not with distributed.strategy=fsdp"):
        validate_config(small(f"optimizer={name}", "distributed.strategy=fsdp"), Rank(0, 2, 0, 2))


def test_muon_without_matrices():
    config = small("optimizer=muon", "model.freeze=[encoder]")
    assert "no matrix of the encoder's layers is trained; use optimizer=adamw" in preflight([config])[0]
