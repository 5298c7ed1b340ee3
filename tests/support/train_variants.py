"""Train several variants of a run one after another within one launch of torchrun.

    torchrun --nproc_per_node N tests/support/train_variants.py DIRECTORY VARIANT ...

Each variant has a run directory of its name, in which ``logits.npy`` has the dev logits before the first step.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from torch.distributed.fsdp import CPUOffloadPolicy

sys.path.insert(0, str(Path(__file__).parent))
from helpers import SMALL

from afqmc import config as schema
from afqmc.distributed.rank import current_rank
from afqmc.run_dir import NullRunDir, RunDir
from afqmc.runner import experiment, validation
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import evaluate_split
from afqmc.training import device
from afqmc.training.callbacks.base import Callback
from afqmc.training.parallel import build_fsdp_plugin

# no dropout, since its masks differ between processes; with 91 pairs the last batch has 3, fewer than some shares
BASE = (*SMALL, "dataset.max_train_samples=91", "dataset.max_dev_samples=70", "trainer.eval_batch_size=16")
# with multi-sample dropout; the transform stands for dropout
R_DROP = ("objective=r_drop", "model.dropout.multi_sample=2", "+model.transforms.odd._target_=odd_rows.ScaleOddRows")
TEACHER = os.environ.get("TEACHER", "")  # set by the test: a directory with a sweep over folds and unlabelled pairs
VARIANTS = {
    "bucketed": (),
    "accumulated": ("trainer.gradient_accumulation_steps=2",),
    "stream": ("dataset.streaming=true", "dataset.shuffle_buffer_size=20"),
    "by tokens": ("dataset.batching=token_budget", "dataset.max_tokens_per_batch=256"),
    "random, weighted, clipped": (
        "dataset.batching=random", "objective.class_weights=balanced", "objective.label_smoothing=0.1",
        "trainer.max_grad_norm=0.5",
    ),
    "packed, recomputed": ("performance.padding_free=true", "trainer.gradient_checkpointing=true"),
    "focal, clipped": ("objective=focal", "trainer.max_grad_norm=0.5"),
    "poly1": ("objective=poly1", "objective.class_weights=balanced", "trainer.gradient_accumulation_steps=2"),
    "r_drop": (*R_DROP, "trainer.gradient_accumulation_steps=2"),
    "fsdp, r_drop": ("distributed.strategy=fsdp", *R_DROP),
    "both orders, added pairs": ("dataset.swap=both", "dataset.transitive=true"),
    "distilled": (
        "dataset.swap=augment", "objective=distillation", f"dataset.teacher={TEACHER}/sweep",
        f"dataset.unlabelled_file={TEACHER}/more.jsonl", "trainer.gradient_accumulation_steps=2",
    ),
    "sgd": ("optimizer=sgd", "lr=0.1"),
    "ema, fgm": ("callbacks=[ema,fgm]", "trainer.gradient_accumulation_steps=2"),
    "soup, pgd": ("callbacks=[soup,pgd]", "trainer.gradient_accumulation_steps=2"),
    "awp": ("callbacks=[awp]", "trainer.gradient_accumulation_steps=2"),
    "fsdp, ema, fgm": ("distributed.strategy=fsdp", "callbacks=[ema,fgm]", "trainer.gradient_accumulation_steps=2"),
    "fsdp, gradients, soup, fgm": (
        "distributed.strategy=fsdp", "distributed.fsdp_sharding=shard_grad_op", "trainer.gradient_accumulation_steps=2",
        "callbacks=[soup,fgm]",
    ),
    "fsdp, off-loaded, ema": (
        "distributed.strategy=fsdp", "distributed.fsdp_cpu_offload=true", "callbacks=[ema]",
    ),
    "fsdp": ("distributed.strategy=fsdp",),
    "fsdp, accumulated": ("distributed.strategy=fsdp", "trainer.gradient_accumulation_steps=2"),
    "fsdp, off-loaded": ("distributed.strategy=fsdp", "distributed.fsdp_cpu_offload=true"),
    "fsdp, gradients": (
        "distributed.strategy=fsdp", "distributed.fsdp_sharding=shard_grad_op", "trainer.gradient_accumulation_steps=2",
    ),
    "fsdp, recomputed, clipped": (
        "distributed.strategy=fsdp", "trainer.gradient_checkpointing=true", "trainer.max_grad_norm=0.5",
    ),
    "layers": (
        "optimizer.layer_decay=0.8", "optimizer.head_lr=2e-3", "model.freeze=[embeddings]", "model.reinit_layers=1",
    ),
    "muon": ("optimizer=muon", "trainer.gradient_accumulation_steps=2"),
    "stable_adamw": ("optimizer=stable_adamw", "trainer.gradient_accumulation_steps=2"),
    "schedule_free": ("optimizer=schedule_free", "scheduler=constant"),
    "lora": ("model.lora.r=2", "lr=1e-2", "trainer.gradient_accumulation_steps=2"),
    "fsdp, lora": ("distributed.strategy=fsdp", "model.lora.r=2", "lr=1e-2"),
    "fsdp, layers": (
        "distributed.strategy=fsdp", "optimizer.layer_decay=0.8", "model.freeze=[embeddings]", "model.reinit_layers=1",
    ),
    "fsdp, schedule_free": ("distributed.strategy=fsdp", "optimizer=schedule_free", "scheduler=constant"),
}  # fmt: skip
PRETRAINING = "pretraining, accumulated"
VARIANTS[PRETRAINING] = (
    *("dataset=sample", "model=mini", "tracker=none", "lr=1e-3", "batch_size=8", "epochs=2"),
    *("dataset.max_train_samples=40", "trainer.mixed_precision=no", "trainer.logging_steps=1"),
    *("trainer.gradient_accumulation_steps=2", "trainer.eval_batch_size=3", "model.config_overrides.hidden_size=48"),
    *(f"+model.config_overrides.{name}=0" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")),
)
SEVERAL_PROCESSES_ONLY = ("distributed.strategy=", "distributed.fsdp_sharding=", "distributed.fsdp_cpu_offload=")


class ScoreBeforeTraining(Callback):
    """Writes the logits of dev before the first step."""

    def __init__(self, run_dir):
        self.run_dir = run_dir

    def on_fit_start(self, trainer):
        logits = evaluate_split(trainer.setup, trainer.dev, "dev").logits
        if current_rank().is_main:
            np.save(self.run_dir.path / "logits.npy", logits)


class NoLifecycle:
    """A lifecycle that writes no status, so that several runs can share one launch."""

    resumed, finished = False, None

    def begin_training(self, trainer):
        pass

    def complete(self, summary):
        self.summary = summary


def train(directory, variant):
    rank = current_rank()
    overrides = [
        override
        for override in VARIANTS[variant]
        if not (rank.is_single and override.startswith(SEVERAL_PROCESSES_ONLY))
    ]
    if variant == PRETRAINING:
        config = schema.compose(overrides, config_name="pretrain")
    else:
        config = schema.compose([*BASE, *overrides])
    run_dir = (RunDir if rank.is_main else NullRunDir)(directory / variant)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    summary = run_experiment(
        config, run_dir, callbacks=[ScoreBeforeTraining(run_dir)], lifecycle=nullcontext(NoLifecycle())
    )
    run_dir.write_summary(summary)


def unpinned(config):
    """Return the FSDP plugin without pinned memory, which needs a GPU, so that off-loading works on a CPU."""
    plugin = build_fsdp_plugin(config)
    if config.fsdp_cpu_offload:
        plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
    return plugin


if __name__ == "__main__":
    device.build_fsdp_plugin, validation.check_processes = (
        unpinned,
        lambda *_: None,
    )
    experiment.destroy_process_group = lambda: None  # a launch can initialise only one process group
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in sys.argv[2:]:
        train(Path(sys.argv[1]), name)
