"""Runs of several processes: equal to one process, one run directory, one end for all ranks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PATIENCE_S, PYTHON, SMALL, command, environment, rows, summary
from run_differences import largest_differences
from teacher import write_teacher
from train_variants import PRETRAINING, VARIANTS
from transformers import AutoConfig, AutoModel, MegatronBertConfig, MegatronBertModel

from afqmc.data.batching import Shard, TrainLoader, eval_batches
from afqmc.data.config import DatasetConfig
from afqmc.data.tokenization import PairTokenizer
from afqmc.distributed.rank import Rank, current_rank, export_torchrun_env
from afqmc.run_dir import RunDir
from afqmc.training.config import (
    DistributedConfig,
    FsdpSharding,
    PerformanceConfig,
    Strategy,
    TorchCompile,
    TrainerConfig,
)
from afqmc.training.parallel import layer_classes
from afqmc.training.process_checks import check_processes, describe_batch_division
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]
LOSS, WEIGHTS, METRICS = 1e-6, 2e-6, 1e-6  # bounds after 24 steps, for float32 sums in another order
MUON_WEIGHTS = 5e-4  # its iterations in bfloat16 amplify the rounding of the gradients
QUICK = ("accumulated", "fsdp", "r_drop", "ema, fgm", PRETRAINING)


def launch(processes, *command, **options):
    """Start a command under torchrun, with one thread per process, so that logits are equal bit for bit."""
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", str(processes))
    return subprocess.Popen(
        [sys.executable, *torchrun, *map(str, command)],
        env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


def train_variants(directory, processes, variants):
    """Train the variants under torchrun."""
    command = (PYTHON, "-m", "train_variants", directory, *variants)
    torchrun = (PYTHON, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--no-python", *command)
    done = subprocess.run(
        torchrun, cwd=ROOT / "tests/support", env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def check_against_one_process(tmp_path, processes, variants):
    """Train the variants in several processes and in one, and compare the results."""
    single = subprocess.run(
        [PYTHON, "-m", "train_variants", tmp_path / "1", *variants],
        cwd=ROOT / "tests/support", env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert single.returncode == 0, single.stderr
    train_variants(tmp_path / str(processes), processes, variants)
    for variant in variants:
        difference = largest_differences(RunDir(tmp_path / "1" / variant), RunDir(tmp_path / str(processes) / variant))
        print(processes, variant, difference)
        assert difference["logits"] == 0, variant
        assert difference["loss"] < LOSS, variant
        assert difference["metrics"] < METRICS, variant
        assert difference["weights"] < (MUON_WEIGHTS if variant == "muon" else WEIGHTS), variant


def test_two_processes_match_one(tmp_path):
    """Two processes give the losses, metrics and weights of one process."""
    check_against_one_process(tmp_path, 2, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_match_one_in_every_variant(tmp_path, processes, monkeypatch):
    """Two and three processes match one process in every variant."""
    for package in ("pytorch_optimizer", "peft"):
        pytest.importorskip(package, reason="some variants need an extra")
    write_teacher(tmp_path, "dataset.max_train_samples=91")
    monkeypatch.setenv("TEACHER", str(tmp_path))
    check_against_one_process(tmp_path, processes, tuple(VARIANTS))


class Started:
    """A long run under torchrun that a test disturbs."""

    def __init__(self, directory, processes, *overrides):
        self.run = RunDir(directory)
        self.process = launch(
            processes, "-m", "afqmc.run", *SMALL, "epochs=9999", "checkpoint.save_steps=10", *overrides,
            f"hydra.run.dir={directory}", cwd=directory.parent,
        )  # fmt: skip

    def training(self, steps=15):
        deadline = time.monotonic() + PATIENCE_S
        while not self.run.metrics.exists() or self.run.metrics.read_bytes().count(b"train/loss") < steps:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def pid(self, rank):
        log = (self.run.path / f"logs/rank-{rank}.log").read_text("utf-8")
        return int(re.search(rf"rank {rank} of \d+, process (\d+)", log)[1])

    def ends(self, within):
        since = time.monotonic()
        out, _ = self.process.communicate(timeout=within)
        print(f"ended after {time.monotonic() - since:.1f} s")
        assert self.process.returncode != 0
        return out

    @property
    def status(self):
        return self.run.read_status()


def steps_of(run):
    lines = run.metrics.read_text("utf-8").splitlines()
    return [row["step"] for row in map(json.loads, lines) if "train/loss" in row]


@pytest.mark.slow
def test_sigterm_at_one_rank(tmp_path):
    """SIGTERM at one rank saves a checkpoint and ends all ranks; one process resumes the run."""
    started = Started(tmp_path / "run", 2).training()
    os.kill(started.pid(1), signal.SIGTERM)
    out = started.ends(within=PATIENCE_S)
    assert "terminated" in out
    assert out.count("processes: 2, ddp; a batch of 8 pairs is 2 processes x 4 pairs") == 1
    assert started.status["status"] == "interrupted"
    reached = started.status["step"]
    resumed = launch(1, "-m", "afqmc.run", f"resume={started.run.path}", cwd=tmp_path)
    deadline = time.monotonic() + PATIENCE_S
    while steps_of(started.run)[-1] < reached + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    resumed.terminate()
    text = resumed.communicate(timeout=PATIENCE_S)[0]
    assert f"resumed at step {reached} of" in text
    assert "resumed on 1 processes instead of 2" in text
    assert steps_of(started.run)[: reached + 2] == list(range(1, reached + 3))


@pytest.mark.slow
def test_fsdp_run_resumes_with_any_processes(tmp_path):
    """A run with FSDP is evaluated and resumed by one process, and then resumed by two again."""
    run = RunDir(tmp_path / "run")
    process = launch(
        2, "-m", "afqmc.run", *SMALL, "distributed.strategy=fsdp", "optimizer=sgd", "scheduler=constant",
        f"hydra.run.dir={run.path}", cwd=tmp_path,
    )  # fmt: skip
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    evaluated = command("evaluate", str(run.path), cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"{summary(run)['best']['dev/roc_auc']:.4f}" in evaluated.stdout
    resumed = command("run", f"resume={run.path}", "epochs=3", "distributed.strategy=ddp", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    fsdp = ("distributed.strategy=fsdp", "distributed.fsdp_sharding=shard_grad_op")
    process = launch(2, "-m", "afqmc.run", f"resume={run.path}", "epochs=4", *fsdp, cwd=tmp_path)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert steps_of(run) == list(range(1, 49))
    whole = RunDir(tmp_path / "whole")
    single = command(
        "run", *SMALL, "optimizer=sgd", "scheduler=constant", "epochs=4", f"hydra.run.dir={whole.path}", cwd=tmp_path
    )
    assert single.returncode == 0, single.stderr
    losses = zip(rows(run, "train/loss"), rows(whole, "train/loss"), strict=True)
    assert max(abs(a - b) for a, b in losses) < LOSS


@pytest.mark.slow
def test_killed_rank(tmp_path):
    """A killed rank ends all ranks and is named; the run can be resumed with another number of processes."""
    started = Started(tmp_path / "run", 2).training()
    gone = started.pid(1)
    os.kill(gone, signal.SIGKILL)
    out = started.ends(within=PATIENCE_S)
    assert f"rank 1 (process {gone} on " in out
    assert started.status["status"] == "failed"
    assert f"rank 1 (process {gone} on " in started.status["error"]
    again = launch(3, "-m", "afqmc.run", f"resume={started.run.path}", cwd=tmp_path)
    while "resumed at" not in (started.run.path / "run.log").read_text("utf-8"):
        assert again.poll() is None, again.communicate()[0]
        time.sleep(0.1)
    again.terminate()
    assert "resumed on 3 processes instead of 2" in again.communicate(timeout=PATIENCE_S)[0]


@pytest.mark.slow
def test_rank_dies_before_rendezvous(tmp_path):
    """A rank that dies before the rendezvous ends all ranks promptly."""
    process = launch(
        2, ROOT / "tests/support/kill_rank_1.py", *SMALL, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path
    )
    since = time.monotonic()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert time.monotonic() - since < 30  # torchrun gives a process that ignores the signal as long
    assert RunDir(tmp_path / "run").read_status()["status"] == "interrupted"


@pytest.mark.slow
def test_hanging_rank(tmp_path):
    """A rank that hangs is named after the time-out of the process group."""
    started = Started(tmp_path / "run", 2, "distributed.process_group_timeout_s=5").training()
    os.kill(started.pid(1), signal.SIGSTOP)
    out = started.ends(within=90)  # torchrun waits 30 s for a stopped process
    assert "rank 1 (process " in out
    assert "stuck" in out


@pytest.mark.slow
def test_error_at_one_rank(tmp_path):
    """Rank 0 reports the error of another rank."""
    (tmp_path / "fragile.py").write_text(
        "import os, torch\n"
        "def factor(step, total_steps):\n"
        "    if step == 12 and os.environ['RANK'] == '1':\n"
        "        raise LookupError('no such step')\n"
        "    return 1.0\n"
    )
    started = Started(tmp_path / "run", 2, "scheduler._target_=fragile.factor")
    out = started.ends(within=PATIENCE_S)
    assert re.search(r"failed: RankError: rank 1 \(process \d+ on .*\) failed: LookupError: no such step", out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--multirun", "lr=1e-4,1e-5"), "-m: not with several processes"),
        (("sweep=lr_seed",), "-m: not with several processes"),
        (("batch_size=1",), "possible: batch_size=2"),
        (("trainer.auto_microbatch=true",), "trainer.auto_microbatch=true: not with several processes"),
        (("lr=0",), "lr=0"),
    ],
)
def test_errors_are_reported_once(tmp_path, overrides, message):
    """Invalid input is reported once, not by every process."""
    flags, overrides = ([word for word in overrides if word.startswith("-") is is_flag] for is_flag in (True, False))
    command = ("-m", "afqmc.run", *flags, *SMALL, *overrides, f"hydra.run.dir={tmp_path / 'run'}")  # flags come first
    process = launch(2, *command, cwd=tmp_path)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert out.count(message) == 1, out


def test_batch_division():
    """The division of a batch is described; one that is impossible names sizes that are possible."""
    config = TrainerConfig(gradient_accumulation_steps=2)
    assert describe_batch_division(32, config, Rank(world_size=4)) == (
        "a batch of 32 pairs is 4 processes x 2 microbatches x 4 pairs"
    )
    assert describe_batch_division(10, TrainerConfig(), Rank(world_size=3)).endswith("3 processes x 3 or 4 pairs")
    with pytest.raises(InputError, match="possible: batch_size=8 or trainer.gradient_accumulation_steps=1"):
        describe_batch_division(7, config, Rank(world_size=4))
    with pytest.raises(InputError, match="possible: batch_size=8 or at most 3 processes"):
        describe_batch_division(3, config, Rank(world_size=4))


ENDING = """
import os, sys
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from afqmc.training.parallel import destroy_process_group

sys.setswitchinterval(1000)  # no other Python thread runs until this one waits
for run in range(10):
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/{run}", rank=0, world_size=1)
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    gathered = [[torch.ones(3)] for _ in range(100)]
    for tensors in gathered:
        dist.all_gather(tensors, torch.ones(3), async_op=True)
    destroy_process_group()
    del model
os._exit(0)
"""


def test_freeing_ddp_model_does_not_deadlock(tmp_path):
    """Freeing a DDP model while gloo releases its last work does not deadlock."""
    subprocess.run([PYTHON, "-c", ENDING, tmp_path], env=environment(), timeout=PATIENCE_S, check=True)


@pytest.mark.parametrize(
    ("distributed", "compile", "size", "message"),
    [
        ({"strategy": Strategy.fsdp}, None, 1, "needs several processes"),
        (
            {"fsdp_sharding": FsdpSharding.shard_grad_op},
            None,
            2,
            "distributed.fsdp_sharding: only with distributed.str",
        ),
        ({"strategy": Strategy.fsdp, "fsdp_cpu_offload": True}, None, 2, "needs a GPU to off-load from"),
        ({"strategy": Strategy.fsdp}, TorchCompile.default, 2, "performance.torch_compile: not with distributed.str"),
    ],
)
def test_options_that_exclude_each_other(distributed, compile, size, message):
    performance = PerformanceConfig(torch_compile=compile)
    with pytest.raises(InputError, match=message):
        check_processes(TrainerConfig(), DistributedConfig(**distributed), performance, Rank(world_size=size), "cpu")


@pytest.mark.parametrize("kind", ["bert", "electra", "ernie", "megatron-bert", "roberta", "modernbert"])
def test_fsdp_wraps_layers(kind):
    """FSDP wraps each layer of an encoder, so that it never gathers half of it at once."""
    with torch.device("meta"):
        encoder = AutoModel.from_config(AutoConfig.for_model(kind))
    names = layer_classes(encoder)
    layers = [module for module in encoder.modules() if type(module).__name__ in names and list(module.parameters())]
    largest = max(sum(parameter.numel() for parameter in layer.parameters()) for layer in layers)
    layered = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    assert len(layers) >= encoder.config.num_hidden_layers
    assert largest < 0.5 * layered


def test_memory_stated_in_docs():
    """The memory stated in the docs follows from the real number of parameters."""
    config = MegatronBertConfig(  # of IDEA-CCNL/Erlangshen-MegatronBert-1.3B
        vocab_size=21248, hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, intermediate_size=8192
    )
    with torch.device("meta"):
        encoder = MegatronBertModel(config, add_pooling_layer=False)
    (name,) = layer_classes(encoder)
    layers = [module for module in encoder.modules() if type(module).__name__ == name]
    whole, largest = (sum(parameter.numel() for parameter in module.parameters()) for module in (encoder, layers[0]))
    share = 16 * whole / 8
    needs = (20 * whole, share + 4 * whole + 12 * largest, share + 12 * largest, 12 * largest)
    for name in ("docs/clusters.md", "docs/clusters.zh.md"):
        text = (ROOT / name).read_text("utf-8")
        stated = re.findall(r"^\| `distributed.strategy=.*?\| ([0-9.]+) \|", text, re.MULTILINE)
        assert stated == [f"{need / 2**30:.1f}" for need in needs]
        assert f"{whole:.2e}".replace("e+0", "e") in text
        assert f"{largest:.1e}".replace("e+0", "e") in text


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_cover_batch_once(pairs, tiny_tokenizer, size):
    """The shares of a batch contain each of its pairs once."""
    (batch, *_, last) = TrainLoader(pairs, PairTokenizer(tiny_tokenizer, 32), 8, 0, DatasetConfig()).epoch(0)
    for whole in (batch, last):
        shares = [whole.shard(rank, size) for rank in range(size)]
        assert [row for share, counts in shares if counts for row in share.ids] == whole.ids
        assert all(len(share) for share, _ in shares)


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_eval_batches_are_dealt_evenly(pairs, tiny_tokenizer, size):
    """Batches to evaluate are dealt out undivided, the same number to each process."""
    pair_tokenizer = PairTokenizer(tiny_tokenizer, 32)
    tokenized = pair_tokenizer.encode(pairs)
    alone = [rows.tolist() for rows, _ in eval_batches(tokenized, pair_tokenizer, 8)]
    dealt = [
        [rows.tolist() for rows, _ in eval_batches(tokenized, pair_tokenizer, 8, Shard(rank, size))]
        for rank in range(size)
    ]
    assert len({len(batches) for batches in dealt}) == 1
    assert sorted({tuple(rows) for batches in dealt for rows in batches}) == sorted(map(tuple, alone))
    assert np.array_equal(np.sort(np.concatenate(alone)), np.arange(len(pairs)))


def test_srun_tasks_are_ranks():
    variables = {
        "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "gpu[03-04,9],login", "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": "0",
    }  # fmt: skip
    export_torchrun_env(variables)
    assert current_rank(variables) == Rank(rank=3, world_size=5, local_rank=1, local_world_size=2)
    assert variables["MASTER_ADDR"] == "gpu03"


def test_slurm_batch_script_is_one_process():
    variables = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    export_torchrun_env(variables)
    assert current_rank(variables).is_single


def test_incomplete_launcher_variables():
    with pytest.raises(InputError, match="WORLD_SIZE=2: LOCAL_RANK"):
        current_rank({"RANK": "0", "WORLD_SIZE": "2"})
