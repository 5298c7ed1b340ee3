"""The tutorial's loop: each batch tokenised when it is needed, float32, the loss read at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import AutoTokenizer, BertModel, get_scheduler

from benchmarks.clock import Clock
from benchmarks.work import EVAL_BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, SEED, Pair, Work

Collate = Callable[[list[dict[str, Any]]], tuple[dict[str, Tensor], Tensor]]


class AFQMC(Dataset[dict[str, Any]]):
    """Pairs by index."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.data = [dict(zip(("sentence1", "sentence2", "label"), pair, strict=True)) for pair in pairs]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.data[idx]


class BertForPairwiseCLS(nn.Module):
    """BERT with dropout and one linear layer on the [CLS] state."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(checkpoint, add_pooling_layer=False)
        self.dropout = nn.Dropout(self.bert.config.hidden_dropout_prob)
        self.classifier = nn.Linear(self.bert.config.hidden_size, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (B, 2)."""
        cls_vectors = self.bert(**inputs).last_hidden_state[:, 0, :]
        return self.classifier(self.dropout(cls_vectors))


def build_collator(checkpoint: str) -> Collate:
    """Return a function that tokenises a batch, padded to its longest pair."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def collate_fn(samples: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        inputs = tokenizer(
            [sample["sentence1"] for sample in samples],
            [sample["sentence2"] for sample in samples],
            padding=True,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        return inputs, torch.tensor([sample["label"] for sample in samples])

    return collate_fn


def train(work: Work, clock: Clock) -> float:
    """Train and return the running mean of the loss."""
    set_seed(SEED)
    accelerator = Accelerator()
    loader = DataLoader(
        AFQMC(work.train_pairs()), batch_size=work.batch_size, shuffle=True, collate_fn=build_collator(str(work.model))
    )
    model = BertForPairwiseCLS(str(work.model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=work.steps)
    loss_fn = nn.CrossEntropyLoss()
    total_loss, step = 0.0, 0
    model.train()
    for _ in range(work.epochs):
        progress_bar = tqdm(loader)
        for inputs, labels in progress_bar:
            loss = loss_fn(model(inputs), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            lr_scheduler.step()
            step += 1
            total_loss += loss.item()
            progress_bar.set_description(f"loss: {total_loss / step:>7f}")
            clock.on_step_end(step)
            if step == work.steps:
                return total_loss / step
    return total_loss / step


def evaluate(work: Work, clock: Clock) -> float:
    """Evaluate with the tutorial's test loop."""
    accelerator = Accelerator()
    model = accelerator.prepare(BertForPairwiseCLS(str(work.model)))
    collate_fn = build_collator(str(work.model))

    def accuracy(pairs: list[Pair]) -> float:
        loader = accelerator.prepare(DataLoader(AFQMC(pairs), batch_size=EVAL_BATCH_SIZE, collate_fn=collate_fn))
        correct = 0.0
        model.eval()
        with torch.no_grad():
            for inputs, labels in tqdm(loader):
                correct += (model(inputs).argmax(1) == labels).type(torch.float).sum().item()
        return correct / len(pairs)

    accuracy(work.warm_up_pairs())
    clock.start()
    result = accuracy(work.dev_pairs())
    clock.stop()
    return result
