"""The training loop of the tutorial, written plainly, to which methods can be added."""

import copy

import numpy as np
import torch
from helpers import rows
from run_differences import NOISE
from torch import nn
from transformers import BertModel, get_scheduler

from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.trainer import Trainer
from afqmc.training.callbacks.factory import build_callbacks

BATCH_SIZE = 4


def tutorial(steps):
    """Return overrides for the recipe of the tutorial, with a small model."""
    return (
        "lr=1e-5",
        f"batch_size={BATCH_SIZE}",
        f"trainer.max_steps={steps}",
        "dataset.max_train_samples=300",
        "dataset.batching=random",
        "performance.fast_cpu_dropout=false",
        "performance.skip_unused_tokens=false",
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


def backward(model, inputs, labels):
    """Compute the gradients of a batch; return the loss."""
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    return loss


class PlainLoop:
    """The loop over the batches that a run uses.

    Args:
        setup: The parts of the run, before the training.
        steps: Number of optimizer steps.
    """

    def __init__(self, setup, steps):
        self.setup, self.seed = setup, setup.config.seed
        self.pairs, self.lr = setup.data.train, setup.config.lr
        epochs = [np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs)) for epoch in range(3)]
        order = np.concatenate(epochs)
        self.batches = [
            order[start : start + BATCH_SIZE].tolist() for start in range(0, BATCH_SIZE * steps, BATCH_SIZE)
        ]
        self.model = TutorialModel(setup.model.encoder.config)
        self.model.load_state_dict(copy.deepcopy(setup.model.state_dict()))

    def run(self, backward=backward, after_step=lambda model: None):
        """Train as the script of the tutorial does; return the losses."""
        self.model.train()
        no_decay = ("bias", "LayerNorm.weight")
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if not n.endswith(no_decay)], "weight_decay": 0.01},
            {"params": [p for n, p in named if n.endswith(no_decay)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=len(self.batches))
        torch.manual_seed(self.seed)
        losses = []
        for batch in self.batches:
            inputs = self.setup.tokenizer(
                [self.pairs.sentence1[i] for i in batch],
                [self.pairs.sentence2[i] for i in batch],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            optimizer.zero_grad()
            loss = backward(self.model, inputs, torch.tensor([self.pairs.labels[i] for i in batch]))
            optimizer.step()
            scheduler.step()
            after_step(self.model)
            losses.append(loss.item())
        return losses


def train_and_compare(setup, steps, **plain):
    """Train with afqmc and with the plain loop; check that all losses are equal; return the trainer and the loop."""
    loop = PlainLoop(setup, steps)
    methods = build_callbacks(setup.config.callbacks)
    trainer = Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0, methods=methods)
    trainer.fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    assert len(ours) == steps
    np.testing.assert_allclose(ours, loop.run(**plain), rtol=0, atol=1e-6)
    return trainer, loop


def largest_difference(weights, others):
    """Return the largest absolute difference of two sets of named weights; for biases of keys, see run_differences."""
    assert weights.keys() == others.keys()
    return max((weights[name] - others[name]).abs().max().item() for name in weights if not name.endswith(NOISE))
