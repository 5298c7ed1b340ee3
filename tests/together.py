"""Train in several ways, one after another, as the processes of one launch; run by tests under torchrun.

    torchrun --nproc_per_node N tests/together.py DIRECTORY WAY ...

Each way leaves a run directory of its name, and ``logits.npy``: those of the dev split before the first step.
"""

import os
import sys
from pathlib import Path

import numpy as np
from torch.distributed.fsdp import CPUOffloadPolicy

sys.path.insert(0, str(Path(__file__).parent))
from helpers import SMALL

import afqmc.runner.experiment
from afqmc import config as schema
from afqmc.distributed.rank import here
from afqmc.run_dir import BesideRunDir, RunDir
from afqmc.runner import setup as preparation
from afqmc.runner.experiment import Job
from afqmc.training import device as hardware
from afqmc.training.parallel import sharding

# no dropout: its masks differ from process to process; 91 pairs: the last batch has 3, fewer than there may be shares
BASE = (*SMALL, "dataset.max_train_samples=91", "dataset.max_dev_samples=70", "trainer.eval_batch_size=16")
WAYS = {
    "bucketed": (),
    "accumulated": ("trainer.gradient_accumulation_steps=2",),
    "stream": ("dataset.streaming=true", "dataset.shuffle_buffer=20"),
    "by tokens": ("dataset.batching=tokens", "dataset.batch_tokens=256"),
    "random, weighted, clipped": (
        "dataset.batching=random", "trainer.class_weights=balanced", "trainer.label_smoothing_factor=0.1",
        "trainer.max_grad_norm=0.5",
    ),
    "packed, recomputed": ("trainer.padding_free=true", "trainer.gradient_checkpointing=true"),
    "sgd": ("optimizer=sgd", "lr=0.1"),
    "fsdp": ("trainer.strategy=fsdp",),
    "fsdp, accumulated": ("trainer.strategy=fsdp", "trainer.gradient_accumulation_steps=2"),
    "fsdp, off-loaded": ("trainer.strategy=fsdp", "trainer.cpu_offload=true"),
    "fsdp, gradients": ("trainer.strategy=fsdp", "trainer.shard=gradients", "trainer.gradient_accumulation_steps=2"),
    "fsdp, recomputed, clipped": (
        "trainer.strategy=fsdp", "trainer.gradient_checkpointing=true", "trainer.max_grad_norm=0.5",
    ),
}  # fmt: skip
ALONE = ("trainer.strategy=", "trainer.shard=", "trainer.cpu_offload=")  # what one process is not told


def train(directory, way):
    rank = here()
    told = [word for word in WAYS[way] if not (rank.is_alone and word.startswith(ALONE))]
    config = schema.compose([*BASE, *told])
    run_dir = (RunDir if rank.is_main else BesideRunDir)(directory / way)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    job = Watched(config, run_dir)
    summary = job.run()
    run_dir.write_summary(summary)


class Watched(Job):
    """Scores dev before the first step, too."""

    def _run(self):
        from afqmc.runner.trainer import Training

        run = Training.run

        def watched(training):
            found = training.prepared.score(training.dev, "dev")
            if here().is_main:
                np.save(self.run_dir.path / "logits.npy", found.logits)
            run(training)

        Training.run = watched
        try:
            return super()._run()
        finally:
            Training.run = run


def unpinned(config):
    """Off-loading without a GPU: its memory alone cannot be pinned then."""
    plugin = sharding(config)
    if config.cpu_offload:
        plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
    return plugin


if __name__ == "__main__":
    hardware.sharding, preparation.check_processes = unpinned, lambda *_: None  # which asks for a GPU
    afqmc.runner.experiment.leave = lambda: None  # a launcher's rendezvous is good for one group of processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in sys.argv[2:]:
        train(Path(sys.argv[1]), name)
