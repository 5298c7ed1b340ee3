"""Plain training loops give the same losses: that of the tutorial, and those of methods by their papers' formulas."""

import pytest
import torch
from helpers import prepared
from torch import nn
from torch.nn import functional as F
from tutorial_loop import train_and_compare, tutorial

STEPS, METHOD_STEPS = 50, 30


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


def r_drop(model, inputs, labels):
    """Each pair twice, for two dropout masks; the sum of the cross-entropies and the divergence."""
    logits = model({name: values.repeat_interleave(2, dim=0) for name, values in inputs.items()})
    p, q = logits[::2].softmax(1), logits[1::2].softmax(1)
    divergence = (p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)
    losses = F.cross_entropy(logits[::2], labels) + F.cross_entropy(logits[1::2], labels)
    return losses + 2.0 / 2 * divergence.mean()


def focal(model, inputs, labels):
    p = model(inputs).softmax(1)[range(len(labels)), labels]
    return ((1 - p) ** 2 * -p.log()).mean()


def poly1(model, inputs, labels):
    logits = model(inputs)
    p = logits.softmax(1)[range(len(labels)), labels]
    return (F.cross_entropy(logits, labels, reduction="none") + 1 - p).mean()


def supervised_contrastive(model, inputs, labels):
    vectors = model.vectors(inputs)
    cross_entropy = F.cross_entropy(model.classifier(model.dropout(vectors)), labels)
    z = vectors / vectors.norm(dim=1, keepdim=True)
    similar, losses = (z @ z.T / 0.3).exp(), []
    for i, label in enumerate(labels):
        others = [k for k in range(len(labels)) if k != i]
        same = [j for j in others if labels[j] == label]
        terms = [(similar[i, j] / sum(similar[i, k] for k in others)).log() for j in same]
        losses.append(-sum(terms) / len(same) if same else vectors.sum() * 0)
    return 0.5 * cross_entropy + 0.5 * torch.stack(losses).mean()


def mixout(model, inputs, labels):
    """Mix the columns of all linear layers of the encoder with the weights before the first step."""
    layers = [f"bert.{name}.weight" for name, layer in model.bert.named_modules() if isinstance(layer, nn.Linear)]
    if not hasattr(model, "initial"):
        model.initial = {name: model.get_parameter(name).detach().clone() for name in layers}
    mixed = {}
    for name, initial in model.initial.items():
        mask = (F.dropout(torch.ones(1, initial.shape[1]), 0.6) > 0).float()
        weight = model.get_parameter(name)
        mixed[name] = ((1 - mask) * initial + mask * weight - 0.6 * initial) / (1 - 0.6)
    return F.cross_entropy(torch.func.functional_call(model, mixed, (inputs,)), labels)


def multi_sample(model, inputs, labels):
    logits = model.classifier(model.dropout(model.vectors(inputs).repeat(3, 1)))
    return torch.stack([F.cross_entropy(sample, labels) for sample in logits.chunk(3)]).mean()


METHODS = {
    r_drop: ("objective=r_drop", "objective.alpha=2"),
    focal: ("objective=focal",),
    poly1: ("objective=poly1",),
    supervised_contrastive: ("objective=supervised_contrastive",),
    mixout: (
        "model.mixout=0.6",
        "model.config_overrides.hidden_dropout_prob=0.0",
        "model.config_overrides.attention_probs_dropout_prob=0.0",
    ),
    multi_sample: ("model.dropout.multi_sample=3",),
}


@pytest.mark.parametrize("loss_of", METHODS)
def test_methods_equal_plain_loops(tmp_path, loss_of):
    """The losses of 30 steps with a method equal those of a loop that writes out its paper's formula."""
    setup = prepared(tmp_path / "run", *tutorial(METHOD_STEPS), *METHODS[loss_of])

    def backward(model, inputs, labels):
        loss = loss_of(model, inputs, labels)
        loss.backward()
        return loss

    train_and_compare(setup, METHOD_STEPS, backward=backward)
