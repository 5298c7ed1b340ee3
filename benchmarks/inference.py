"""Speed of inference with a finished run: the engines of afqmc and other ways to load the same weights, in turns.

    python -m benchmarks.inference RUN_DIR [--pairs 512] [--rounds 3] [--contestants afqmc-auto,cross-encoder-bf16,...]

The run needs its exports in RUN_DIR/exports: afqmc export RUN_DIR --format transformers, onnx and openvino, and the
last two with --int8.
Each measurement is a new process: from the texts of dev pairs to logits, after one warm-up batch, and then single
pairs, one after the other. Contestants take turns, and another one is first in each round. Ratios are within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine

BATCH, SINGLE = 64, 20
REFERENCE = "cross-encoder-bf16"
Texts = list[tuple[str, str]]
Scorer = Callable[[Texts], np.ndarray]  # texts of N pairs to logits (N, C)


def afqmc(engine: str) -> Callable[[Path], Scorer]:
    """Return the predictor with an engine. It sorts pairs by length."""

    def load(run: Path) -> Scorer:
        from afqmc.data.loading import Pairs
        from afqmc.inference.predictor import Predictor

        name = str(run / "exports" / engine) if engine.startswith("onnx") or engine.endswith("-int8") else engine
        predictor = Predictor.load(run, "cpu", labelled=False, engine=name)

        def score(texts: Texts) -> np.ndarray:
            first, second = map(list, zip(*texts, strict=True))
            return predictor.evaluate(Pairs("dev", [*range(len(texts))], first, second, None)).logits

        return score

    return load


def cross_encoder(dtype: str) -> Callable[[Path], Scorer]:
    """Return ``CrossEncoder.predict`` of sentence-transformers, which sorts pairs by length too."""

    def load(run: Path) -> Scorer:
        import torch
        from sentence_transformers import CrossEncoder

        options = {"dtype": getattr(torch, dtype)}
        path = str(run / "exports" / "transformers")
        model = CrossEncoder(path, device="cpu", trust_remote_code=True, model_kwargs=options)
        return lambda texts: model.predict(texts, batch_size=BATCH, convert_to_tensor=True).float().numpy()

    return load


def hf_pipeline(run: Path) -> Scorer:
    """Return ``pipeline("text-classification")`` with batches in the order of the texts."""
    from transformers import pipeline

    path = str(run / "exports" / "transformers")
    classify = pipeline("text-classification", model=path, device="cpu", trust_remote_code=True)
    labels = [classify.model.config.id2label[index] for index in range(classify.model.config.num_labels)]

    def score(texts: Texts) -> np.ndarray:
        inputs = [{"text": first, "text_pair": second} for first, second in texts]
        answers = classify(inputs, batch_size=BATCH, top_k=None, function_to_apply="none", truncation=True)
        return np.array([[{x["label"]: x["score"] for x in row}[label] for label in labels] for row in answers])

    return score


def plain(compute: Callable[[Path], Callable[[dict[str, np.ndarray]], np.ndarray]], export: str) -> Any:
    """Return batches of sorted pairs, tokenized by transformers, on an engine with its default settings."""

    def load(run: Path) -> Scorer:
        from transformers import AutoTokenizer

        directory = run / "exports" / export
        tokenizer = AutoTokenizer.from_pretrained(directory)
        length = json.loads((directory / "export.json").read_text())["max_length"]
        logits_of = compute(directory)

        def score(texts: Texts) -> np.ndarray:
            order = sorted(range(len(texts)), key=lambda index: -sum(map(len, texts[index])))
            parts = []
            for start in range(0, len(order), BATCH):
                rows = [texts[index] for index in order[start : start + BATCH]]
                first, second = map(list, zip(*rows, strict=True))
                batch = tokenizer(first, second, padding=True, truncation=True, max_length=length, return_tensors="np")
                parts.append(logits_of(dict(batch)))
            result = np.empty((len(texts), parts[0].shape[1]), np.float32)
            result[order] = np.concatenate(parts)
            return result

        return score

    return load


def onnx_runtime(directory: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return ONNX Runtime with its default settings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def openvino(directory: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return OpenVINO with its default settings, which include bfloat16 where the CPU has it."""
    from openvino import Core

    model = Core().compile_model(directory / "openvino_model.xml", "CPU")
    names = [port.any_name for port in model.inputs]
    return lambda batch: model({name: batch[name] for name in names})[0].copy()


CONTESTANTS: dict[str, Callable[[Path], Scorer]] = {
    REFERENCE: cross_encoder("bfloat16"),
    "cross-encoder": cross_encoder("float32"),
    "pipeline": hf_pipeline,
    "plain-onnxruntime": plain(onnx_runtime, "onnx"),
    "plain-openvino": plain(openvino, "openvino"),
    "afqmc-torch": afqmc("torch"),
    "afqmc-torch-bf16": afqmc("torch-bf16"),
    "afqmc-onnx": afqmc("onnx"),
    "afqmc-onnx-int8": afqmc("onnx-int8"),
    "afqmc-openvino": afqmc("openvino"),
    "afqmc-openvino-bf16": afqmc("openvino-bf16"),
    "afqmc-openvino-int8": afqmc("openvino-int8"),
    "afqmc-auto": afqmc("auto"),
}


def measure(name: str, run: Path, count: int) -> dict[str, Any]:
    """Return pairs per second, the median time of a single pair in milliseconds, and the logits."""
    from afqmc.inference.predictor import Predictor
    from afqmc.utils.process import configure_threads

    configure_threads()
    pairs = Predictor.load(run, "cpu").read_pairs(None, labelled=True)
    texts = [*zip(pairs.sentence1[:count], pairs.sentence2[:count], strict=True)]
    score = CONTESTANTS[name](run)
    score(texts[:BATCH])
    start = time.perf_counter()
    logits = score(texts)
    seconds = time.perf_counter() - start
    single = []
    for text in texts[:SINGLE]:
        start = time.perf_counter()
        score([text])
        single.append(time.perf_counter() - start)
    rate, milliseconds = len(texts) / seconds, statistics.median(single) * 1000
    return {"pairs_per_second": rate, "single_ms": milliseconds, "logits": np.asarray(logits, np.float64).tolist()}


def table(rounds: list[dict[str, dict[str, Any]]], reference: str, exact: np.ndarray) -> list[str]:
    """Return the lines of a Markdown table: ratios within a round, median with lowest and highest."""
    lines = [
        f"| contestant | pairs/s | to {reference} | single pair, ms | largest logit difference | changed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in rounds[0]:
        rates = [results[name]["pairs_per_second"] for results in rounds]
        ratios = [results[name]["pairs_per_second"] / results[reference]["pairs_per_second"] for results in rounds]
        single = statistics.median(results[name]["single_ms"] for results in rounds)
        logits = np.array(rounds[0][name]["logits"])
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"
        changed = int((logits.argmax(1) != exact.argmax(1)).sum())
        difference = f"{np.abs(logits - exact).max():.1e}"
        lines.append(f"| {name} | {statistics.median(rates):.1f} | {ratio} | {single:.1f} | {difference} | {changed} |")
    return lines


def main() -> None:
    """Measure and print a table in Markdown. Differences are from the float32 CrossEncoder, or the reference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", type=lambda text: text.split(","), default=[*CONTESTANTS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.run, options.pairs)))
        return
    names, rounds = options.contestants, []
    for index in range(options.rounds):
        first = index % len(names)
        results = {}
        for name in names[first:] + names[:first]:
            arguments = [str(options.run), "--pairs", str(options.pairs), "--one", name]
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.inference", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            results[name] = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"round {index + 1}, {name}: {results[name]['pairs_per_second']:.1f} pairs/s", file=sys.stderr)
        rounds.append({name: results[name] for name in names})
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} at the end\n")
    exact_name = "cross-encoder" if "cross-encoder" in names else names[0]
    reference = REFERENCE if REFERENCE in names else names[0]
    print("\n".join(table(rounds, reference, np.array(rounds[0][exact_name]["logits"]))))


if __name__ == "__main__":
    main()
