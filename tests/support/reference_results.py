"""Record what a set of small runs gives, bit for bit, and compare it with an earlier recording.

    python tests/support/reference_results.py record FILE [--stored SWEEP_DIR] [--only NAME ...]
    python tests/support/reference_results.py compare FILE [--stored SWEEP_DIR] [--only NAME ...]

Use it around a change that must not change behaviour: record before, compare after, on the same machine and with the
same versions of the libraries. FILE holds, per run, the SHA-256 of the best weights, of the rows of metrics.jsonl
without times and speeds, and of each predictions file. ``--stored`` names a finished sweep, whose ``compare --json``
is recorded too. AFQMC_DATA names the directory with AFQMC; without it the runs on AFQMC are skipped, saying so.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

TIMED = ("pairs_per_second", "time", "seconds")
MINI = [
    "model=mini", "lr=2e-4", "batch_size=16", "epochs=1", "tracker=none", "dataset.path={afqmc}",
    "dataset.max_train_samples=1000", "dataset.max_dev_samples=300", "dataset.max_test_samples=100",
    "model.config_overrides.num_hidden_layers=2", "trainer.eval_steps=20", "trainer.logging_steps=5",
]  # fmt: skip
QUICKSTART = ["experiment=quickstart", "tracker=none", "epochs=1", "trainer.logging_steps=5"]
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler=tpe", "trainer.max_steps=10"]
RUNS = {
    "quickstart": QUICKSTART,
    "accumulation, class weights, clipping, bf16": [
        *MINI, "trainer.gradient_accumulation_steps=2", "objective.class_weights=balanced", "trainer.max_grad_norm=0.5",
        "trainer.mixed_precision=bf16",
    ],
    "accumulation, smoothing, clipping, float32": [
        *MINI, "trainer.gradient_accumulation_steps=2", "objective.label_smoothing=0.1",
        "trainer.max_grad_norm=0.5", "trainer.mixed_precision='no'",
    ],
    "streaming": [*MINI, "dataset.streaming=true", "dataset.shuffle_buffer_size=100"],
    "padding-free": [*MINI, "performance.padding_free=true", "dataset.batching=random"],
    "early stopping": [*QUICKSTART, "trainer.eval_steps=20", "trainer.patience=1", "trainer.monitor=dev/roc_auc"],
}  # fmt: skip


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def results(run_dir: Path) -> dict[str, str]:
    """Return the digests of one finished run."""
    tensors = load_file(run_dir / "checkpoints/best/model.safetensors")
    weights = b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    untimed = [{key: value for key, value in row.items() if not key.endswith(TIMED)} for row in rows]
    files = {path.name: digest(path.read_bytes()) for path in sorted((run_dir / "predictions").iterdir())}
    return {"weights": digest(weights), "metrics": digest(json.dumps(untimed, sort_keys=True).encode()), **files}


def afqmc(*words: str, launch: tuple[str, ...] = ("-m", "afqmc.run")) -> subprocess.Popen:
    command = [sys.executable, *launch, *(word.format(afqmc=os.environ.get("AFQMC_DATA", "")) for word in words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {process.args}\n{output[-4000:]}")
    return output


def killed_and_resumed(directory: Path) -> dict[str, str]:
    """Kill a run with SIGKILL after its first checkpoint and ten more steps, and resume it."""
    process = afqmc(*QUICKSTART, "checkpoint.save_steps=10", "trainer.logging_steps=1", f"hydra.run.dir={directory}")
    rows = directory / "metrics.jsonl"
    while process.poll() is None:
        steps = rows.read_text("utf-8").count("\n") if rows.exists() else 0
        if steps >= 25 and (directory / "checkpoints/last").exists():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    process.communicate()
    assert not (directory / "summary.json").exists(), "the run had finished before it was killed"
    finish(afqmc(f"resume={directory}", "tracker=none"))
    return results(directory)


def several(sweep: Path) -> dict[str, str]:
    """Return the digests of all runs of a sweep."""
    found = sorted(path.parent for path in sweep.glob("*/summary.json"))
    return {f"{run.name}: {key}": value for run in found for key, value in results(run).items()}


def record(directory: Path, stored: Path | None, only: list[str]) -> dict[str, dict[str, str]]:
    recorded: dict[str, dict[str, str]] = {}

    def keep(name: str, needs_afqmc: bool, make) -> None:
        if only and name not in only:
            return
        if needs_afqmc and not os.environ.get("AFQMC_DATA"):
            print(f"skipped, AFQMC_DATA is not set: {name}", flush=True)
            return
        since = time.monotonic()
        recorded[name] = make(directory / name.replace(",", "").replace(" ", "-"))
        print(f"{name}: {time.monotonic() - since:.0f} s", flush=True)

    def run(words: list[str], **options):
        return lambda target: (finish(afqmc(*words, f"hydra.run.dir={target}", **options)), results(target))[1]

    def sweep(words: list[str]):
        return lambda target: (finish(afqmc("-m", *words, f"hydra.sweep.dir={target}")), several(target))[1]

    for name, words in RUNS.items():
        keep(name, words[0] == "model=mini", run(words))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "afqmc.run")
    keep("two processes", True, run(MINI, launch=torchrun))
    keep("killed and resumed", False, killed_and_resumed)
    keep("folds", True, sweep([*MINI, "trainer.max_steps=20", "dataset.num_folds=2", "dataset.fold=0,1"]))
    keep("search", False, sweep([*QUICKSTART, *SEARCH, "lr=interval(1e-4,1e-3)", "seed=1,2"]))
    if stored:
        output = finish(afqmc(str(stored), "--json", launch=("-m", "afqmc.compare")))
        recorded["compare --json"] = {"output": digest(output.encode())}
    return recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--stored", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="afqmc-reference-"))
    try:
        recorded = record(directory, arguments.stored, arguments.only)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.action == "record":
        arguments.file.write_text(json.dumps(recorded, indent=1) + "\n", "utf-8")
        return
    expected = json.loads(arguments.file.read_text("utf-8"))
    changed = [
        f"{name}: {key}"
        for name, digests in recorded.items()
        for key in sorted(digests.keys() | expected[name].keys())
        if digests.get(key) != expected[name].get(key)
    ]
    print("\n".join(["changed:", *changed]) if changed else f"all equal: {', '.join(recorded)}")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
