"""The plain training loop of the tutorial over given pairs, with which the losses of runs are compared."""

import numpy as np
import torch
from torch import nn
from transformers import get_scheduler
from tutorial_loop import TutorialModel

PLAIN = (  # of the runs that it repeats
    "dataset.batching=random",
    "performance.fast_cpu_dropout=false",
    "performance.skip_unused_tokens=false",
    "model.pooling=cls",
)


def shuffled_batches(pairs, seed, size, steps):
    """Return the batches of the first ``steps`` steps, with a new random order in each epoch."""
    batches, epoch = [], 0
    while len(batches) < steps:
        order = np.random.default_rng((seed, epoch)).permutation(len(pairs))
        batches += [[pairs[row] for row in order[start : start + size]] for start in range(0, len(pairs), size)]
        epoch += 1
    return batches[:steps]


def plain_losses(state, setup, batches, loss_fn=nn.functional.cross_entropy):
    """Train as the script of the tutorial does; return the losses.

    Args:
        state: The initial weights.
        setup: The parts of the run, of which tokenizer, encoder config, learning rate and seed are used.
        batches: The pairs of each step, each a tuple (sentence1, sentence2, target).
        loss_fn: Takes the logits and the targets of the batch as a tensor.
    """
    encoder = setup.model.encoder.config
    model = TutorialModel(encoder)
    model.load_state_dict(state)
    model.train()
    no_decay = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(no_decay)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if n.endswith(no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=setup.config.lr)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=len(batches))
    torch.manual_seed(setup.config.seed)
    losses = []
    for batch in batches:
        sentence1, sentence2, targets = zip(*batch, strict=True)
        inputs = setup.tokenizer(
            [*sentence1], [*sentence2], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        loss = loss_fn(model(inputs), torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses
