"""The Lightning Trainer: bf16-mixed where that is fast, fused AdamW, a plain DataLoader over tokenised pairs."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    get_scheduler,
)

from benchmarks.clock import Clock
from benchmarks.contestants.tokenised import tokenize
from benchmarks.work import EVAL_BATCH_SIZE, LEARNING_RATE, SEED, WEIGHT_DECAY, Pair, Work, has_fast_bf16


class PairModule(L.LightningModule):
    """BERT for sequence classification, with its optimizer."""

    def __init__(self, checkpoint: str, steps: int) -> None:
        super().__init__()
        self.model = BertForSequenceClassification.from_pretrained(checkpoint).train()
        self.steps = steps

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self.model(**batch).loss
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """Log the accuracy of a batch."""
        hits = (self.model(**batch).logits.argmax(-1) == batch["labels"]).float().mean()
        self.log("val_accuracy", hits, batch_size=len(batch["labels"]))

    def configure_optimizers(self) -> dict[str, Any]:
        """Return fused AdamW with linear decay per step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class ClockCallback(L.Callback):
    """Reports each step to the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Report the step."""
        self.clock.on_step_end(trainer.global_step)


def build_trainer(work: Work, callbacks: list[L.Callback]) -> L.Trainer:
    """Return a Trainer that writes nothing."""
    return L.Trainer(
        max_epochs=work.epochs,
        max_steps=work.max_steps or -1,
        precision="bf16-mixed" if has_fast_bf16() else "32-true",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=work.scratch,
    )


def build_loader(
    pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, batch_size: int, shuffle: bool
) -> DataLoader[Any]:
    """Return batches that are padded to their longest pair."""
    return DataLoader(
        tokenize(tokenizer, pairs),  # type: ignore[arg-type]  # a list works too
        batch_size=batch_size,
        shuffle=shuffle,
        collate_fn=DataCollatorWithPadding(tokenizer),
    )


def train(work: Work, clock: Clock) -> float:
    """Train with ``Trainer.fit``, and return the mean loss of the last epoch."""
    L.seed_everything(SEED)
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    engine = build_trainer(work, [ClockCallback(clock)])
    batches = build_loader(work.train_pairs(), tokenizer, work.batch_size, shuffle=True)
    engine.fit(PairModule(str(work.model), work.steps), batches)
    return float(engine.callback_metrics["train_loss"])


def evaluate(work: Work, clock: Clock) -> float:
    """Evaluate with ``Trainer.validate``."""
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    engine, module = build_trainer(work, []), PairModule(str(work.model), 1)
    engine.validate(
        module, build_loader(work.warm_up_pairs(), tokenizer, EVAL_BATCH_SIZE, shuffle=False), verbose=False
    )
    clock.start()
    batches = build_loader(work.dev_pairs(), tokenizer, EVAL_BATCH_SIZE, shuffle=False)
    (metrics,) = engine.validate(module, batches, verbose=False)
    clock.stop()
    return metrics["val_accuracy"]
