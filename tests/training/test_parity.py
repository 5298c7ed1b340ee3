"""The default recipe is that of the tutorial: a plain training loop gives the same losses."""

import copy

import numpy as np
import pytest
import torch
from helpers import prepared, rows
from torch import nn
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

    def forward(self, inputs):
        vector = self.bert(**inputs).last_hidden_state[:, 0]
        return self.classifier(self.dropout(vector))


def tutorial_losses(state, config, tokenizer, pairs, order, seed):
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
    loss_fn = nn.CrossEntropyLoss()
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
        loss = loss_fn(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def compare(setup):
    state = copy.deepcopy(setup.model.state_dict())
    config, pairs = setup.model.encoder.config, setup.data.train
    epochs = [np.random.default_rng((setup.config.seed, epoch)).permutation(len(pairs)) for epoch in range(3)]
    order = np.concatenate(epochs)
    batches = [order[start : start + 4].tolist() for start in range(0, 4 * STEPS, 4)]
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    plain = tutorial_losses(state, config, setup.tokenizer, pairs, batches, setup.config.seed)
    assert len(ours) == STEPS
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
