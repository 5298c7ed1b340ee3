"""The Hugging Face Trainer at its best: batches of similar length, bf16 where that is fast, fused AdamW, no logging."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from benchmarks.clock import Clock
from benchmarks.contestants.tokenised import tokenised
from benchmarks.work import LEARNING_RATE, SEED, WEIGHT_DECAY, Work, has_fast_bf16

MEGA_BATCH = 50  # batches sorted together, as the Trainer has it on the whole of AFQMC


class ManyBatchesSampler(LengthGroupedSampler):
    """The Trainer's own sampler, sorting on a part of the data as many batches together as it does on all of it.

    It takes a quarter of the batches there are, at most 50: on the few hundred pairs of a measurement that would be
    two, and it would pad far more than it does in earnest.
    """

    def __iter__(self) -> Any:
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, MEGA_BATCH, generator=self.generator))


class LengthGroupedTrainer(Trainer):
    """A Trainer with that sampler, in training and in evaluation."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return ManyBatchesSampler(self.args.train_batch_size, dataset=self.train_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler:
        return ManyBatchesSampler(self.args.eval_batch_size, dataset=eval_dataset)


class Tell(TrainerCallback):
    """Tells the clock each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After the optimizer's step."""
        self.clock.reach(state.global_step)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """What the Trainer computes after an evaluation."""
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


def trainer(work: Work, data: Any, callbacks: list[TrainerCallback]) -> Trainer:
    """A Trainer for this work."""
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    return LengthGroupedTrainer(
        model=BertForSequenceClassification.from_pretrained(work.model),
        args=TrainingArguments(
            output_dir=str(work.scratch / "trainer"),
            per_device_train_batch_size=work.batch_size,
            per_device_eval_batch_size=64,
            num_train_epochs=work.epochs,
            max_steps=work.max_steps or -1,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            lr_scheduler_type="linear",
            max_grad_norm=0.0,  # none of the others clips
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            bf16=has_fast_bf16(),
            use_cpu=not torch.cuda.is_available(),  # without it, bf16 is refused on a CPU
            dataloader_num_workers=0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=tokenised(tokenizer, data),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=callbacks,
    )


def train(work: Work, clock: Clock) -> float:
    """Train; returns the Trainer's mean loss."""
    return trainer(work, work.train_pairs(), [Tell(clock)]).train().training_loss


def evaluate(work: Work, clock: Clock) -> float:
    """``Trainer.evaluate``, which groups by length as well."""
    engine = trainer(work, work.warm_up_pairs(), [])
    engine.evaluate(tokenised(engine.processing_class, work.warm_up_pairs()))
    clock.start()
    found = engine.evaluate(tokenised(engine.processing_class, work.dev_pairs()))
    clock.stop()
    return found["eval_accuracy"]
