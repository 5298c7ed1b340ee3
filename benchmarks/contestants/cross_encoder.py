"""sentence-transformers' CrossEncoder and its trainer: bf16 where that is fast, no sampler by length."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import CrossEntropyLoss
from transformers import TrainerCallback

from benchmarks.clock import Clock
from benchmarks.work import LEARNING_RATE, MAX_LENGTH, SEED, WEIGHT_DECAY, Pair, Work, has_fast_bf16


class ClockCallback(TrainerCallback):
    """Reports each step to the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step."""
        self.clock.on_step_end(state.global_step)


def train(work: Work, clock: Clock) -> float:
    """Train and return the trainer's mean loss."""
    model = CrossEncoder(str(work.model), num_labels=2, max_length=MAX_LENGTH)
    sentences1, sentences2, labels = zip(*work.train_pairs(), strict=True)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(work.scratch / "cross-encoder"),
            per_device_train_batch_size=work.batch_size,
            num_train_epochs=work.epochs,
            max_steps=work.max_steps or -1,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            lr_scheduler_type="linear",
            max_grad_norm=0.0,
            optim="adamw_torch_fused",
            bf16=has_fast_bf16(),
            use_cpu=not torch.cuda.is_available(),  # without this, bf16 is rejected on a CPU
            dataloader_num_workers=0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=Dataset.from_dict({"sentence1": sentences1, "sentence2": sentences2, "label": labels}),
        loss=CrossEntropyLoss(model),
        callbacks=[ClockCallback(clock)],
    )
    return trainer.train().training_loss


def evaluate(work: Work, clock: Clock) -> float:
    """Evaluate with ``CrossEncoder.predict``: sorted by length, bf16 weights where that is fast, as documented."""
    dtype = torch.bfloat16 if has_fast_bf16() else torch.float32
    model = CrossEncoder(str(work.model), num_labels=2, max_length=MAX_LENGTH, model_kwargs={"dtype": dtype})

    def accuracy(pairs: list[Pair]) -> float:
        scores = model.predict([(sentence1, sentence2) for sentence1, sentence2, _ in pairs])
        hits = scores.argmax(axis=1) == [label for *_, label in pairs]
        return float(hits.mean())

    accuracy(work.warm_up_pairs())
    clock.start()
    result = accuracy(work.dev_pairs())
    clock.stop()
    return result
