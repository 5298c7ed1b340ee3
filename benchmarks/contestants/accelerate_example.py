"""A loop like Accelerate's NLP example: tokenised in advance with ``datasets``, bf16 where that is fast."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    get_scheduler,
)

from benchmarks.clock import Clock
from benchmarks.work import EVAL_BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, SEED, Pair, Work, has_fast_bf16


def accelerator() -> Accelerator:
    """Return an Accelerator with the faster precision."""
    return Accelerator(mixed_precision="bf16" if has_fast_bf16() else "no")


def dataset(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return tokenised pairs with the columns of the model's inputs."""
    sentences1, sentences2, labels = zip(*pairs, strict=True)
    raw = Dataset.from_dict({"sentence1": sentences1, "sentence2": sentences2, "labels": labels})
    return raw.map(
        lambda rows: tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        remove_columns=["sentence1", "sentence2"],
    )


def train(work: Work, clock: Clock) -> float:
    """Train and return the mean loss of the last epoch."""
    engine = accelerator()
    set_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    loader = DataLoader(
        dataset(work.train_pairs(), tokenizer),
        shuffle=True,
        batch_size=work.batch_size,
        collate_fn=DataCollatorWithPadding(tokenizer),
    )
    model = BertForSequenceClassification.from_pretrained(work.model)
    optimizer = AdamW(params=model.parameters(), lr=LEARNING_RATE)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=work.steps)
    model, optimizer, loader, scheduler = engine.prepare(model, optimizer, loader, scheduler)
    step = 0
    for _ in range(work.epochs):
        model.train()
        total = torch.zeros((), device=engine.device)
        for batches, batch in enumerate(loader, 1):
            loss = model(**batch).loss
            total += loss.detach().float()
            engine.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
            clock.on_step_end(step)
            if step == work.steps:
                return (total / batches).item()
    return float("nan")


def evaluate(work: Work, clock: Clock) -> float:
    """Evaluate as in the example."""
    engine = accelerator()
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    model = engine.prepare(BertForSequenceClassification.from_pretrained(work.model))

    def accuracy(pairs: list[Pair]) -> float:
        loader = engine.prepare(
            DataLoader(
                dataset(pairs, tokenizer), batch_size=EVAL_BATCH_SIZE, collate_fn=DataCollatorWithPadding(tokenizer)
            )
        )
        correct = 0
        model.eval()
        for batch in loader:
            with torch.no_grad():
                outputs = model(**batch)
            predictions, references = engine.gather_for_metrics((outputs.logits.argmax(dim=-1), batch["labels"]))
            correct += int((predictions == references).sum())
        return correct / len(pairs)

    accuracy(work.warm_up_pairs())
    clock.start()
    result = accuracy(work.dev_pairs())
    clock.stop()
    return result
