"""Export a run into a directory, check it in a new process, and keep it only if it is equal enough."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from afqmc.checkpoint.store import replace_directory
from afqmc.checkpoint.weights import Loaded
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.decision import DECISION_FILE, Decision
from afqmc.inference.export.graphs import check_packages, trace, write_graph
from afqmc.inference.export.manifest import MANIFEST, Manifest, tokenizer_digest
from afqmc.inference.export.scoring import Scores, score_in_new_process
from afqmc.inference.export.standard import write_checkpoint
from afqmc.inference.run_files import load_run_config, read_decision, read_weights
from afqmc.run_dir import RunDir
from afqmc.training.device import cpu_name
from afqmc.utils.errors import InputError
from afqmc.utils.process import usable_cores
from afqmc.utils.safe_files import sha256

_PACKAGES = ("afqmc", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
PrintComparison = Callable[[Scores], list[dict[str, Any]]]  # prints the comparison and returns its rows


def write_export(
    run_dir: Path,
    target: Path,
    format: str,
    int8: bool,
    tolerance: float,
    trust: bool,
    check: PrintComparison,
    score: Callable[[Path, Path, bool], Scores] = score_in_new_process,
    card: Callable[[Manifest, Decision | None], str] | None = None,
) -> tuple[str | None, Decision | None]:
    """Export the best weights of an untrusted run into ``target``, which is replaced if it is an export.

    Args:
        run_dir: The run.
        target: The directory to write.
        format: One of ``FORMATS``.
        int8: Whether to quantise the weights (ONNX and OpenVINO only).
        tolerance: Largest difference of a logit.
        trust: Allow the model code that the run's config names.
        check: Gets what the engines computed, and returns a row per engine.
        score: Computes that.
        card: Returns the model card, README.md; None for none.

    Returns:
        How the head is stored (``transformers``), else None; and the run's decision, of which the export has a copy.

    Raises:
        InputError: if the model cannot be exported, or the export differs too much, and then nothing is left of it.
    """
    check_packages(format, int8)
    run = RunDir(run_dir)
    run.ensure_inside(target, "-o")
    _check_target(target, run)
    source = _Source.of(run, trust)
    heads: list[str | None] = []

    def write(directory: Path) -> None:
        head, inputs = _write_model(directory, source, format, int8)
        manifest = _manifest(source, format, int8, tolerance, head, inputs)
        manifest.write(directory)  # the new process reads it
        if source.decision is not None:
            shutil.copyfile(run.best / DECISION_FILE, directory / DECISION_FILE)
        _check_on_dev(manifest, score(run_dir, directory, trust), check)
        manifest.write(directory)
        if card is not None:
            (directory / "README.md").write_text(card(manifest, source.decision), encoding="utf-8")
        heads.append(head)

    target.parent.mkdir(parents=True, exist_ok=True)
    replace_directory(target, write)
    return heads[0], source.decision


@dataclass(frozen=True)
class _Source:
    """The best weights of a run and what belongs to them."""

    run: RunDir
    loaded: Loaded
    decision: Decision | None
    pair_tokenizer: PairTokenizer
    tokenizer_sha256: str

    @classmethod
    def of(cls, run: RunDir, trust: bool) -> _Source:
        config = load_run_config(run)
        loaded = read_weights(run.best, config, trust)
        decision = read_decision(run.best, len(loaded.labels))
        pair_tokenizer = PairTokenizer(loaded.tokenizer, config.dataset.max_length)
        return cls(run, loaded, decision, pair_tokenizer, tokenizer_digest(pair_tokenizer))


def _write_model(directory: Path, source: _Source, format: str, int8: bool) -> tuple[str | None, list[str]]:
    """Write model and tokenizer; return how the head is stored (``transformers``), and the inputs of a graph."""
    loaded, pair_tokenizer = source.loaded, source.pair_tokenizer
    if format == "transformers":
        head = write_checkpoint(directory, loaded.model, loaded.tokenizer, loaded.labels, pair_tokenizer.max_length)
        return head, []
    program, inputs = trace(loaded.model, pair_tokenizer)
    write_graph(directory, format, program, inputs, int8)
    loaded.tokenizer.save_pretrained(directory)
    return None, inputs


def _manifest(
    source: _Source, format: str, int8: bool, tolerance: float, head: str | None, inputs: list[str]
) -> Manifest:
    return Manifest(
        format=format,
        int8=int8,
        head=head,
        inputs=inputs,
        labels=[*source.loaded.labels],
        max_length=source.pair_tokenizer.max_length,
        tokenizer_sha256=source.tokenizer_sha256,
        weights_sha256=sha256(source.run.best / "model.safetensors"),
        tolerance=tolerance,
        versions=_versions(),
        machine={"processor": cpu_name(), "cores": usable_cores()},
    )


def _check_on_dev(manifest: Manifest, scores: Scores, check: PrintComparison) -> None:
    """Record the comparison of the engines, and check that the exported model is equal enough."""
    manifest.engines.extend(check(scores))
    manifest.dev["pairs"] = len(scores.gold)
    _reject_different(manifest, manifest.tolerance)


def _reject_different(manifest: Manifest, tolerance: float) -> None:
    """Check that at least one engine runs the exported model within the tolerance."""
    exported = [row for row in manifest.engines if not row["engine"].startswith("torch")]
    if any(row["within_tolerance"] for row in exported):
        return
    row = exported[0]
    difference, changed = row["max_logit_difference"], row["changed_predictions"]
    raise InputError(
        f"--tolerance {tolerance:g}: a logit of the exported model differs by {difference:.2g}, and {changed} of "
        f"{manifest.dev['pairs']} predictions change; the export is removed"
    )


def _check_target(target: Path, run: RunDir) -> None:
    """Check that ``target`` is new, empty, or an export to replace.

    Raises:
        InputError: if it is anything else, or the run itself.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"-o {target}: is a file; must be a directory")
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).exists():
        raise InputError(f"-o {target}: has other files; give a new or empty directory, or an export to replace")
    if target.resolve().is_relative_to(run.checkpoints.resolve()):
        raise InputError(f"-o {target}: is in the checkpoints of the run; give another directory")


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
