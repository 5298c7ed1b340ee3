"""Compute the logits of the dev split with an exported model and with PyTorch, batch by batch in turns.

``python -m afqmc.inference.export.scoring RUN_DIR EXPORT_DIR OUT [--trust]`` writes OUT, an .npz file with one array of
logits (N, C) per engine, the classes (N,), the seconds of each engine, and the outcome of the run's decision.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from afqmc.cli import run_command
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.metrics import mean_as_logits
from afqmc.inference.engine_timing import compute_in_turns
from afqmc.inference.engines import (
    ONNX,
    OPENVINO,
    OPENVINO_BF16,
    TORCH,
    TORCH_BF16,
    TORCH_FLOAT32,
    Bf16Engine,
    open_engine,
)
from afqmc.inference.export.graphs import TORCH_FILE
from afqmc.inference.export.manifest import Manifest, read_manifest
from afqmc.inference.export.standard import OWN_CODE
from afqmc.inference.predictor import Predictor
from afqmc.inference.run_files import load_run_config
from afqmc.run_dir import RunDir
from afqmc.training.config import MixedPrecision
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError
from afqmc.utils.process import configure_threads

EXPORTED = "exported"  # the model of the export, where no engine of predict runs it
_BY_ENGINE = ("logits", "decided", "cross_fitted")  # the arrays of ``Scores``


@dataclass(frozen=True)
class Scores:
    """The results of the engines for N pairs.

    Attributes:
        logits: (N, C) float32 by engine; the first engine is the reference.
        seconds: Time by engine, without tokenization.
        gold: Classes, (N,).
        decided: Classes that the run's decision predicts, (N,) by engine; empty without a decision.
        cross_fitted: The same, but each pair is decided by what the other parts of dev chose, for accuracy and F1.
    """

    logits: dict[str, np.ndarray]
    seconds: dict[str, float]
    gold: np.ndarray
    decided: dict[str, np.ndarray] = field(default_factory=dict)
    cross_fitted: dict[str, np.ndarray] = field(default_factory=dict)


def score_in_new_process(run_dir: Path, directory: Path, trust: bool) -> Scores:
    """Score the dev split of a run with an export, in a new process that knows only the files.

    Raises:
        InputError: with the last line of what the process printed, if it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "scores.npz"
        arguments = [str(run_dir), str(directory), str(out), *(["--trust"] if trust else [])]
        done = subprocess.run(
            [sys.executable, "-m", "afqmc.inference.export.scoring", *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise InputError(f"the exported model cannot be checked: {lines[-1]}")
        with np.load(out) as arrays:
            names, by_engine = arrays["names"].tolist(), dict[str, dict[str, np.ndarray]]()
            for part in _BY_ENGINE:
                keys = {name: f"{part}_{index}" for index, name in enumerate(names)}
                by_engine[part] = {name: arrays[key] for name, key in keys.items() if key in arrays}
            return Scores(
                seconds=dict(zip(names, arrays["seconds"].tolist(), strict=True)), gold=arrays["gold"], **by_engine
            )


def score(run_dir: Path, directory: Path, trust: bool) -> Scores:
    """Score the dev split of a run with PyTorch in float32, in the precision of the run and in bfloat16, and an export.

    Raises:
        InputError: if the dev split cannot be read, or the export's tokenizer gives other tokens.
    """
    manifest = read_manifest(directory)
    predictor = Predictor.load(run_dir, "cpu", trust, precision="no")
    pairs = predictor.read_pairs(None, labelled=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    exported = PairTokenizer(tokenizer, manifest.max_length)
    orders = [pairs, pairs.swapped()] if predictor.swaps else [pairs]
    tokenized = [predictor.pair_tokenizer.encode(order) for order in orders]
    if not np.array_equal(tokenized[0].tokens, exported.encode(pairs).tokens):
        raise InputError(f"{directory}: its tokenizer gives other tokens than that of the run")
    own = _in_own_precision(run_dir, trust)
    plain = {TORCH: predictor.model} if own is None else {TORCH_FLOAT32: predictor.model, TORCH: own}
    engines = {**plain, TORCH_BF16: Bf16Engine(predictor.model), **_engines(manifest, directory)}
    with CountBar(len(pairs) * len(orders), Path(pairs.file).name) as bar:
        scored = [
            compute_in_turns(
                engines, order, predictor.pair_tokenizer, predictor.config.trainer.eval_batch_size, bar.add
            )
            for order in tokenized
        ]
    by_engine = {name: [logits[name] for logits, _ in scored] for name in engines}
    logits = {
        name: (arrays[0] if len(arrays) == 1 else mean_as_logits(arrays)).astype(np.float32)
        for name, arrays in by_engine.items()
    }
    seconds = {name: sum(times[name] for _, times in scored) / len(orders) for name in engines}
    decided, cross_fitted = {}, {}
    if predictor.decision is not None:
        decided = {name: predictor.decision.apply(values).predicted for name, values in logits.items()}
        if (cross_fit := predictor.cross_fit(pairs)) is not None:
            cross_fitted = {name: cross_fit.decide(values, logits[TORCH]).predicted for name, values in logits.items()}
    return Scores(logits, seconds, np.asarray(pairs.labels), decided, cross_fitted)


def _in_own_precision(run_dir: Path, trust: bool) -> nn.Module | None:
    """Return the model as ``--engine torch`` computes it on this CPU; None if that is float32, or fails (fp16)."""
    if load_run_config(RunDir(run_dir)).trainer.mixed_precision is MixedPrecision.fp16:
        return None
    predictor = Predictor.load(run_dir, "cpu", trust)
    return None if predictor.accelerator.mixed_precision == "no" else predictor.model


class _Standard(nn.Module):
    """A classifier of transformers as an engine."""

    def __init__(self, directory: Path, own_code: bool) -> None:
        super().__init__()
        options: dict[str, Any] = {"trust_remote_code": own_code, "dtype": torch.float32}
        self.model = AutoModelForSequenceClassification.from_pretrained(directory, **options).eval()
        self.one_segment = getattr(self.model.config, "type_vocab_size", None) == 1

    def forward(self, **inputs: Tensor) -> Tensor:
        if self.one_segment:
            inputs.pop("token_type_ids", None)
        return self.model(**inputs).logits  # type: ignore[no-any-return]


class _Program(nn.Module):
    """A program of ``torch.export`` as an engine."""

    def __init__(self, path: Path, names: list[str]) -> None:
        super().__init__()
        self.program, self.names = torch.export.load(path).module(), names

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.program(*(inputs[name] for name in self.names))  # type: ignore[no-any-return]


def _engines(manifest: Manifest, directory: Path) -> dict[str, nn.Module]:
    """Open the exported model with each engine that runs it."""
    if manifest.format == "transformers":
        return {EXPORTED: _Standard(directory, manifest.head == OWN_CODE)}
    if manifest.format == "torch":
        return {EXPORTED: _Program(directory / TORCH_FILE, manifest.inputs)}
    names = (ONNX,) if manifest.format == ONNX else (OPENVINO, OPENVINO_BF16)
    return {name: open_engine(name, directory) for name in names}


def main() -> int:
    """Write the scores that the command line asks for."""
    configure_threads()
    run_dir, directory, out = map(Path, sys.argv[1:4])
    scores = score(run_dir, directory, trust="--trust" in sys.argv[4:])
    arrays = {
        f"{part}_{index}": array for part in _BY_ENGINE for index, array in enumerate(getattr(scores, part).values())
    }
    arrays["names"], arrays["seconds"] = np.array([*scores.logits]), np.array([*scores.seconds.values()])
    np.savez(out, allow_pickle=False, gold=scores.gold, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
