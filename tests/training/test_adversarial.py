"""Adversarial training."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers import prepared, small
from torch import nn
from torch.nn.functional import cross_entropy
from tutorial_loop import PlainLoop, largest_difference, train_and_compare, tutorial

from afqmc.distributed.rank import Rank
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import build_setup
from afqmc.runner.trainer import Trainer
from afqmc.runner.validation import validate_config
from afqmc.training.callbacks.adversarial import unit
from afqmc.training.callbacks.factory import build_callbacks
from afqmc.utils.errors import InputError

STEPS = 30


def scaled(tensors, size):
    """Return each pair's tensor with this norm."""
    return torch.stack([size * tensor / tensor.norm() for tensor in tensors])


def gradients_at(model, inputs, labels, r):
    """Return the loss with r added to the word embeddings, and its gradients with respect to them and the weights."""
    embeddings = model.bert.embeddings.word_embeddings(inputs["input_ids"]) + r
    rest = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    loss = cross_entropy(model({**rest, "inputs_embeds": embeddings}), labels)
    gradient, *weights = torch.autograd.grad(loss, [embeddings, *model.parameters()])
    return loss, gradient, weights


def set_gradients(model, *all_gradients):
    for parameter, *gradients in zip(model.parameters(), *all_gradients, strict=True):
        parameter.grad = sum(gradients)


def fgm(model, inputs, labels):
    """FGM with epsilon=0.5, as in the paper."""
    loss, gradient, clean = gradients_at(model, inputs, labels, 0)
    set_gradients(model, clean, gradients_at(model, inputs, labels, scaled(gradient, 0.5))[2])
    return loss


def pgd(model, inputs, labels):
    """PGD with epsilon=0.25, alpha=0.2 and three steps."""
    loss, gradient, clean = gradients_at(model, inputs, labels, 0)
    r = torch.zeros_like(gradient)
    for _ in range(3):
        r = r + scaled(gradient, 0.2)
        r = torch.stack([pair if pair.norm() <= 0.25 else 0.25 * pair / pair.norm() for pair in r])
        _, gradient, weights = gradients_at(model, inputs, labels, r)
    set_gradients(model, clean, weights)
    return loss


def awp(model, inputs, labels):
    """AWP with gamma=0.1."""
    loss = cross_entropy(model(inputs), labels)
    loss.backward()
    own = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter += 0.1 * parameter.norm() * parameter.grad / parameter.grad.norm()
    model.zero_grad()
    cross_entropy(model(inputs), labels).backward()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), own, strict=True):
            parameter.copy_(value)
    return loss


@pytest.mark.parametrize(
    ("plain", "arguments", "reported"),
    [
        (fgm, ["epsilon=0.5"], {"norm": 0.5}),
        (pgd, ["epsilon=0.25", "alpha=0.2"], {"norm": 0.25}),
        (awp, ["gamma=0.1"], {"relative_norm": 0.1}),
    ],
)
def test_equals_plain_loop(tmp_path, plain, arguments, reported):
    """Losses and weights of 30 steps equal those of a plain loop, and differ from those of plain training."""
    name = plain.__name__
    overrides = (f"callbacks=[{name}]", *(f"callbacks.{name}.{argument}" for argument in arguments))
    setup = prepared(tmp_path / "run", *tutorial(STEPS), *overrides)
    clean = PlainLoop(setup, STEPS)
    trainer, loop = train_and_compare(setup, STEPS, backward=plain)
    ours, theirs = ({n: p.detach() for n, p in model.named_parameters()} for model in (trainer.model, loop.model))
    assert largest_difference(ours, theirs) < 1e-6
    clean.run()
    assert largest_difference(ours, {n: p.detach() for n, p in clean.model.named_parameters()}) > 1e-5
    report = trainer.callbacks[0].report()
    assert {value: report[value] for value in reported} == pytest.approx(reported, rel=0.1 if name == "pgd" else 1e-4)
    assert trainer.model.encoder.get_input_embeddings()._forward_hooks == {}


def test_unit_of_zero_and_infinite_gradients():
    gradients = torch.stack([torch.full((2, 3), value) for value in (0.0, math.inf, math.nan, -2.0)])
    expected = torch.zeros(4, 2, 3)
    expected[3] = -(6**-0.5)
    torch.testing.assert_close(unit(gradients), expected)


class Bag(nn.Module):
    """A model whose embeddings are frozen, and which does not ignore padding."""

    def __init__(self):
        super().__init__()
        self.embeddings, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)
        self.embeddings.requires_grad_(False)

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask):
        self.seen = self.embeddings(input_ids)
        return self.head(self.seen.mean(1))


def attack(callback, model, objective_calls=1):
    """Run one clean pass and the attack; return the clean and the perturbed embeddings of the last call."""
    trainer = SimpleNamespace(model=model, state=SimpleNamespace(step=0), intervals=SimpleNamespace(total=2, epoch=1))
    callback.on_fit_start(trainer)
    inputs = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}

    def backward():
        loss = sum(model(**inputs)[:, 0].sum() for _ in range(objective_calls))
        loss.backward()

    callback.on_before_forward(None, None)
    backward()
    clean = model.seen.detach()
    callback.on_after_backward(None, None, backward)
    return clean, model.seen.detach()


@pytest.mark.parametrize("calls", [1, 2])
def test_padding_is_not_perturbed(calls):
    """Each pair has a perturbation of norm epsilon, 0 for padding, with frozen embeddings and several calls too."""
    (callback,) = build_callbacks(small("callbacks=[fgm]", "callbacks.fgm.epsilon=0.5").callbacks).values()
    clean, perturbed = attack(callback, Bag(), calls)
    difference = perturbed - clean
    assert difference[1, 2].abs().max() == 0
    torch.testing.assert_close(difference.flatten(1).norm(dim=1), torch.tensor([0.5, 0.5]))
    assert callback.report()["norm"] == pytest.approx(0.5)


def test_stale_passes_are_not_used():
    """A pass whose loss was not finite, and has no backward pass, does not disturb the next one."""
    (callback,) = build_callbacks(small("callbacks=[fgm]").callbacks).values()
    model = Bag()
    trainer = SimpleNamespace(model=model, state=SimpleNamespace(step=0), intervals=SimpleNamespace(total=2, epoch=1))
    callback.on_fit_start(trainer)
    callback.on_before_forward(None, None)
    model(input_ids=torch.tensor([[1]]), attention_mask=torch.tensor([[1]]))
    callback.on_fit_end(trainer)
    attack(callback, model)


def test_recomputed_activations(tmp_path):
    """With gradient checkpointing, the losses are the same."""
    losses = []
    for recomputed in (False, True):
        config = small("callbacks=[fgm]", "trainer.max_steps=4", f"trainer.gradient_checkpointing={recomputed}")
        setup = build_setup(config, RunDir(tmp_path))
        trainer = Trainer(setup, [], start_time=0.0, methods=build_callbacks(config.callbacks))
        trainer.fit()
        losses.append(trainer.model.classifier.weight.detach().clone())
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6)


def test_first_epoch(tmp_path):
    """Before the first epoch of the method, nothing is perturbed; one after the end of the run is refused."""
    config = small("callbacks=[fgm]", "callbacks.fgm.first_epoch=2")
    with pytest.raises(InputError, match="callbacks.fgm.first_epoch=2: must be < 2, the epochs of this run"):
        run_experiment(config, RunDir(tmp_path / "refused"))
    config = small("callbacks=[awp]", "callbacks.awp.first_epoch=0.5", "epochs=1")
    norms = []
    setup = build_setup(config, RunDir(tmp_path))
    (method,) = build_callbacks(config.callbacks).values()

    class Watch(type(method)):
        def on_after_optimizer_step(self, step):
            norms.append(self.report()["relative_norm"])

    method.__class__ = Watch
    Trainer(setup, [], start_time=0.0, methods={"awp": method}).fit()
    assert [norm > 0 for norm in norms] == [False] * 6 + [True] * 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fgm.epsilon=-1"], "callbacks.fgm.epsilon=-1: must be >= 0"),
        (["fgm.epsilon=nan"], "callbacks.fgm.epsilon=nan: must be >= 0"),
        (["fgm.first_epoch=-1"], "callbacks.fgm.first_epoch=-1: must be >= 0"),
        (["pgd.alpha=-1"], "callbacks.pgd.alpha=-1: must be >= 0"),
        (["pgd.num_steps=0"], "callbacks.pgd.num_steps=0: must be a whole number >= 1"),
        (["awp.gamma=-1"], "callbacks.awp.gamma=-1: must be >= 0"),
        (["fgm.epsilon=1", "awp.gamma=1"], "callbacks.fgm: not with callbacks.awp"),
        (["pgd.epsilon=1", "fgm.epsilon=1"], "callbacks.pgd: not with callbacks.fgm"),
    ],
)
def test_refused_before_anything_is_loaded(overrides, message):
    names = ",".join(dict.fromkeys(override.partition(".")[0] for override in overrides))
    with pytest.raises(InputError, match=message):
        validate_config(small(f"callbacks=[{names}]", *(f"callbacks.{override}" for override in overrides)), Rank())


@pytest.mark.parametrize("name", ["fgm", "pgd"])
@pytest.mark.parametrize("override", ["padding_free=true", "torch_compile=default"])
def test_not_with_other_forward_passes(name, override):
    with pytest.raises(InputError, match=f"callbacks.{name}: not with performance.{override}"):
        validate_config(small(f"callbacks=[{name}]", f"performance.{override}"), Rank())


def test_model_without_word_embeddings():
    (callback,) = build_callbacks(small("callbacks=[fgm]").callbacks).values()
    with pytest.raises(InputError, match=r"callbacks.fgm: Linear must have a method get_input_embeddings\(\)"):
        attack(callback, nn.Linear(2, 2))
