"""Memory, and time from the command to the first step, by the number of training pairs.

    python -m benchmarks.data_size --data DIR [--pairs 1e6,3e6,10e6] [--model-dir DIR] [--scratch DIR]

DIR has AFQMC. Its train split is repeated with a number at the end of each sentence, so that every pair is new. Each
size is trained for two steps by ``python -m afqmc.run``, with an empty cache and again with what the first run cached.
The model is from scratch. ``--model-dir`` has its config and tokenizer; by default they are those of ``model=mini``
after a step on AFQMC. Memory is the peak RSS of the whole process, which includes the parts of mapped files that it has
read. ``--scratch`` needs 1 GB per million pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path
from typing import Any

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.loop import StepEnd
from benchmarks.machine import describe_machine
from benchmarks.processes import ROOT

_OTHERS = ("dev", "test")


class FirstStep(Callback):
    """Writes the time, and what the process has used, after the first step.

    Args:
        path: A file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Write the file, if it is the first step."""
        if not self.path.exists():
            used = resource.getrusage(resource.RUSAGE_SELF)
            values = {
                "time": time.time(),
                "cpu_s": used.ru_utime + used.ru_stime,
                "rss_gb": used.ru_maxrss * 1024 / 1e9,
            }
            self.path.write_text(json.dumps(values), encoding="utf-8")


def write_data(source: Path, pairs: int, directory: Path) -> None:
    """Write a train split of this many pairs, and the dev and test splits of AFQMC."""
    directory.mkdir()
    rows = [json.loads(line) for line in (source / "train.json").read_text(encoding="utf-8").splitlines()]
    repeated = ((row, number or "") for number in count() for row in rows)
    with (directory / "train.json").open("w", encoding="utf-8") as stream:
        for row, number in islice(repeated, pairs):
            changed = {key: f"{row[key]}{number}" for key in ("sentence1", "sentence2")}
            stream.write(json.dumps(row | changed, ensure_ascii=False) + "\n")
    for split in _OTHERS:
        (directory / f"{split}.json").write_bytes((source / f"{split}.json").read_bytes())


def run(data: Path, scratch: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Train two steps and return what the first step needed; ``peak_gb`` is that of the whole run.

    Raises:
        RuntimeError: with the last lines of its output if it fails.
    """
    result, log = scratch / f"{name}.json", scratch / f"{name}.log"
    command = [
        sys.executable, "-m", "afqmc.run", "model=mini", "tracker=none", "trainer.device=cpu", "trainer.max_steps=2",
        "batch_size=32", f"dataset.path={data}", "dataset.checksums={}", f"dataset.cache_dir={scratch / 'cache'}",
        "dataset.max_dev_samples=64", "dataset.max_test_samples=64", f"hydra.run.dir={scratch / name}",
        "+callbacks.first_step._target_=benchmarks.data_size.FirstStep", f"+callbacks.first_step.path={result}",
        *overrides,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    start = time.time()
    with log.open("wb") as stream:
        actions = [(os.POSIX_SPAWN_DUP2, stream.fileno(), 1), (os.POSIX_SPAWN_DUP2, stream.fileno(), 2)]
        process = os.posix_spawn(sys.executable, command, env, file_actions=actions)
        _, status, used = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
    first = json.loads(result.read_text(encoding="utf-8"))
    return {
        "wall_s": round(first["time"] - start, 1),
        "cpu_s": round(first["cpu_s"], 1),
        "first_step_gb": round(first["rss_gb"], 2),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    """Measure and print a JSON line per run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_size", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", default="1e6,3e6,10e6")
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    print(json.dumps(describe_machine()), flush=True)
    with tempfile.TemporaryDirectory(prefix="afqmc-data-size-", dir=options.scratch) as name:
        scratch, model = Path(name), options.model_dir
        if model is None:
            run(options.data, scratch, "model", [])
            model = scratch / "model/checkpoints/best"
        from_model = [f"model.name_or_path={model.absolute()}", "model.config_overrides={}"]
        for pairs in (int(float(text)) for text in options.pairs.split(",")):
            data = scratch / f"data-{pairs}"
            write_data(options.data, pairs, data)
            for cache in ("empty", "filled"):
                values = run(data, scratch, f"{pairs}-{cache}", from_model)
                print(json.dumps({"pairs": pairs, "cache": cache, **values}), flush=True)
            (data / "train.json").unlink()


if __name__ == "__main__":
    main()
