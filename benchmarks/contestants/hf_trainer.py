"""The Hugging Face Trainer with fast settings: batches by length, bf16 where that is fast, fused AdamW, no logging."""

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
from benchmarks.contestants.tokenised import tokenize
from benchmarks.work import LEARNING_RATE, SEED, WEIGHT_DECAY, Work, has_fast_bf16

MEGA_BATCH = 50  # batches that are sorted at a time; the Trainer's value on all of AFQMC


class ManyBatchesSampler(LengthGroupedSampler):
    """The Trainer's sampler, with as many batches sorted at a time as on the whole data set.

    By default it sorts a quarter of all batches at a time, at most 50. On the few hundred pairs of a measurement that
    would be two batches, with far more padding than on the whole data set.
    """

    def __iter__(self) -> Any:
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, MEGA_BATCH, generator=self.generator))


class LengthGroupedTrainer(Trainer):
    """A Trainer that uses this sampler in training and evaluation."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return ManyBatchesSampler(self.args.train_batch_size, dataset=self.train_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler:
        return ManyBatchesSampler(self.args.eval_batch_size, dataset=eval_dataset)


class ClockCallback(TrainerCallback):
    """Reports each step to the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the step."""
        self.clock.on_step_end(state.global_step)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy, for ``compute_metrics``."""
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


def build_trainer(work: Work, data: Any, callbacks: list[TrainerCallback]) -> Trainer:
    """Return a Trainer for the work."""
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
            max_grad_norm=0.0,  # no other contestant clips gradients
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            bf16=has_fast_bf16(),
            use_cpu=not torch.cuda.is_available(),  # without this, bf16 is rejected on a CPU
            dataloader_num_workers=0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=tokenize(tokenizer, data),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=callbacks,
    )


def train(work: Work, clock: Clock) -> float:
    """Train and return the Trainer's mean loss."""
    return build_trainer(work, work.train_pairs(), [ClockCallback(clock)]).train().training_loss


def evaluate(work: Work, clock: Clock) -> float:
    """Evaluate with ``Trainer.evaluate``, also in batches by length."""
    engine = build_trainer(work, work.warm_up_pairs(), [])
    engine.evaluate(tokenize(engine.processing_class, work.warm_up_pairs()))
    clock.start()
    metrics = engine.evaluate(tokenize(engine.processing_class, work.dev_pairs()))
    clock.stop()
    return metrics["eval_accuracy"]
