"""Plain training loops give the same losses: that of the tutorial, and those of methods by their papers' formulas."""

import copy

import numpy as np
import pytest
import torch
from helpers import prepared, rows
from torch import nn
from torch.nn import functional as F
from transformers import BertModel, get_scheduler

from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.trainer import Trainer

STEPS = 50
TUTORIAL = (
    "lr=1e-5",
    "batch_size=4",
    f"trainer.max_steps={STEPS}",
    "dataset.max_train_samples=300",
    "dataset.batching=random",
    "performance.fast_cpu_dropout=false",
    "model.pooling=cls",
)


class TutorialModel(nn.Module):
    """BERT, the [CLS] vector, dropout, one linear layer to 2 logits."""

    def __init__(self, config):
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 2)

    def vectors(self, inputs):
        return self.bert(**inputs).last_hidden_state[:, 0]

    def forward(self, inputs):
        return self.classifier(self.dropout(self.vectors(inputs)))


def cross_entropy(model, inputs, labels):
    return nn.CrossEntropyLoss()(model(inputs), labels)


def tutorial_losses(state, config, tokenizer, pairs, order, seed, loss_of):
    """Train over the batches in ``order`` as the script of the tutorial does; return the losses."""
    model = TutorialModel(config)
    model.load_state_dict(state)
    model.train()
    no_decay = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(no_decay)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if n.endswith(no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-5)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=len(order))
    torch.manual_seed(seed)
    losses = []
    for batch in order:
        inputs = tokenizer(
            [pairs.sentence1[i] for i in batch],
            [pairs.sentence2[i] for i in batch],
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        labels = torch.tensor([pairs.labels[i] for i in batch])
        loss = loss_of(model, inputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def compare(setup, loss_of=cross_entropy):
    state = copy.deepcopy(setup.model.state_dict())
    config, pairs = setup.model.encoder.config, setup.data.train
    epochs = [np.random.default_rng((setup.config.seed, epoch)).permutation(len(pairs)) for epoch in range(3)]
    order = np.concatenate(epochs)
    steps = setup.config.trainer.max_steps
    batches = [order[start : start + 4].tolist() for start in range(0, 4 * steps, 4)]
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    plain = tutorial_losses(state, config, setup.tokenizer, pairs, batches, setup.config.seed, loss_of)
    assert len(ours) == steps
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
    compare(prepared(tmp_path / "run", *TUTORIAL, "trainer.max_steps=30", *METHODS[loss_of]), loss_of)
