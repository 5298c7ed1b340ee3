"""A hand-written training loop without this package's trainer, to compare losses with."""

import copy

import numpy as np
import torch
from helpers import rows
from torch import nn
from transformers import get_scheduler

from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.trainer import Trainer

STEPS = 30
PLAIN = (
    "batch_size=4",
    f"trainer.max_steps={STEPS}",
    "dataset.batching=random",
    "dataset.max_train_samples=60",
    "dataset.max_dev_samples=20",
    "performance.fast_cpu_dropout=false",
    "performance.skip_unused_tokens=false",
    "model.pooling=cls",
)


def trainer_losses(setup):
    """Return the losses of the trainer, one per step."""
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    return rows(setup.run_dir, "train/loss")


def plain_losses(setup, build_optimizer, schedule="linear", model=None):
    """Train a copy of the setup's model over the same batches; return the losses, one per step.

    ``build_optimizer`` takes the copy. ``model`` replaces the copy.
    """
    config, pairs = setup.config, setup.data.train
    model = copy.deepcopy(setup.model) if model is None else model
    optimizer = build_optimizer(model)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=STEPS)
    size, loss_fn = config.batch_size, nn.CrossEntropyLoss()
    epochs = [np.random.default_rng((config.seed, epoch)).permutation(len(pairs)) for epoch in range(STEPS)]
    order = np.concatenate([epoch[: len(epoch) // size * size] for epoch in epochs]).reshape(-1, size)
    assert len(pairs) % size == 0
    model.train()
    torch.manual_seed(config.seed)
    losses = []
    for batch in order[:STEPS].tolist():
        texts = ([getattr(pairs, name)[index] for index in batch] for name in ("sentence1", "sentence2"))
        inputs = setup.tokenizer(
            *texts, padding=True, truncation=True, max_length=config.dataset.max_length, return_tensors="pt"
        )
        loss = loss_fn(model(**inputs), torch.tensor([pairs.labels[index] for index in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses
