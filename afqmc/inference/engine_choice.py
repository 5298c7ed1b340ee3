"""Choose the engine of a predictor: one by name, that of an export, or the fastest that an export recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from afqmc.checkpoint.weights import Loaded
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.decision import DECISION_FILE
from afqmc.inference.engines import (
    ONNX,
    OPENVINO,
    OPENVINO_BF16,
    TORCH,
    TORCH_BF16,
    Bf16Engine,
    is_installed,
    open_engine,
    require_engine,
)
from afqmc.inference.export.manifest import MANIFEST, Manifest, check_export, read_manifest, tokenizer_digest
from afqmc.models.cpu_kernels import use_fast_cpu_kernels
from afqmc.run_dir import RunDir
from afqmc.training.device import DeviceConfig, cpu_name
from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import sha256

_AUTO = "auto"
_EXPORTED = (ONNX, OPENVINO, OPENVINO_BF16)


@dataclass(frozen=True)
class Candidate:
    """An engine that an export recorded.

    Attributes:
        name: Of the engine.
        directory: Of the export.
        manifest: Of the export.
        speed: Times the speed of plain torch in the precision of the run, in the same check.
        difference: Largest difference of a logit.
        is_close: Whether that is within the export's tolerance.
    """

    name: str
    directory: Path
    manifest: Manifest
    speed: float
    difference: float
    is_close: bool


def select_engine(
    name: str, run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer, device: DeviceConfig
) -> tuple[nn.Module | None, str]:
    """Return the module that computes logits, None for plain torch, and a description of the choice.

    Args:
        name: ``auto``, an engine, or the directory of an export.
        run: The run.
        loaded: Its weights.
        pair_tokenizer: Its tokenizer.
        device: Of plain torch.

    Raises:
        InputError: if there is no such engine or export, the engine is not installed, or the export is damaged,
            invalid, or not of these weights and this tokenizer.
    """
    if name == _AUTO:
        return _fastest(run, loaded, pair_tokenizer, device)
    if name == TORCH_BF16:
        return _bf16(loaded)
    if name in _EXPORTED:
        require_engine(name)
        candidates = [candidate for candidate in _recorded(run) if candidate.name == name]
        if not candidates:
            format = name.removesuffix("-bf16")
            raise InputError(
                f"--engine {name}: {run.exports} has no such export; afqmc export {run.path} --format {format}"
            )
    elif (Path(name) / MANIFEST).exists():
        candidates = [candidate for candidate in _rows(Path(name)) if candidate.name in _EXPORTED]
        if not candidates:
            raise InputError(
                f"--engine {name}: no engine runs this export; --format onnx and openvino write such exports"
            )
    else:
        allowed = ", ".join((_AUTO, TORCH, TORCH_BF16, *_EXPORTED))
        raise InputError(f"--engine {name}: must be one of {allowed}, or the directory of an export")
    best = max(candidates, key=lambda candidate: (candidate.is_close, candidate.speed))
    return _open(best, run, loaded, pair_tokenizer)


def _fastest(
    run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer, device: DeviceConfig
) -> tuple[nn.Module | None, str]:
    """Return the engine that was fastest at export among those that are close enough and installed."""
    if device.device != "cpu":
        return None, f"engine: torch on {device.device}; the others run on the CPU"
    weights = sha256(run.best / "model.safetensors")
    candidates = [
        candidate
        for candidate in _recorded(run)
        if candidate.is_close
        and candidate.manifest.weights_sha256 == weights  # the best weights may have changed since
        and candidate.speed > 1
        and is_installed(candidate.name)
        and candidate.manifest.machine.get("processor") == cpu_name()
    ]
    if not candidates:
        return None, f"engine: torch; no export in {run.exports} found a faster one for these weights on this processor"
    best = max(candidates, key=lambda candidate: candidate.speed)
    return _bf16(loaded, best) if best.name == TORCH_BF16 else _open(best, run, loaded, pair_tokenizer)


def _recorded(run: RunDir) -> Iterator[Candidate]:
    """Yield all engines that the exports of a run recorded, except plain torch."""
    for path in sorted(run.exports.glob(f"*/{MANIFEST}")):
        yield from _rows(path.parent)


def _rows(directory: Path) -> Iterator[Candidate]:
    manifest = read_manifest(directory)
    speeds = {row["engine"]: float(row["pairs_per_second"]) for row in manifest.engines}
    for row in manifest.engines:
        name = row["engine"]
        if name in (TORCH_BF16, *_EXPORTED) and speeds.get(TORCH):
            difference, is_close = float(row["max_logit_difference"]), row["within_tolerance"] is True
            yield Candidate(name, directory, manifest, speeds[name] / speeds[TORCH], difference, is_close)


def _bf16(loaded: Loaded, recorded: Candidate | None = None) -> tuple[nn.Module, str]:
    use_fast_cpu_kernels(loaded.model, fast_dropout=False)
    return Bf16Engine(loaded.model), f"engine: {TORCH_BF16}" if recorded is None else _describe(recorded)


def _open(candidate: Candidate, run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer) -> tuple[nn.Module, str]:
    """Open an untrusted export after checking that it belongs to the run."""
    directory, manifest = candidate.directory, candidate.manifest
    check_export(directory)
    if manifest.weights_sha256 != sha256(run.best / "model.safetensors"):
        raise InputError(f"{directory}: was exported from other weights than {run.best} has; export the run again")
    if manifest.tokenizer_sha256 != tokenizer_digest(pair_tokenizer):
        raise InputError(f"{directory}: was exported with another tokenizer than the run has; export the run again")
    decision = directory / DECISION_FILE
    if decision.exists() and not _is_same_file(decision, run.best / DECISION_FILE):
        raise InputError(f"{decision}: differs from that of the run; export the run again")
    if manifest.labels != [*loaded.labels]:
        raise InputError(f"{directory}: its labels are {', '.join(map(str, manifest.labels))}; export the run again")
    return open_engine(candidate.name, directory), _describe(candidate)


def _is_same_file(first: Path, second: Path) -> bool:
    return second.exists() and sha256(first) == sha256(second)


def _describe(recorded: Candidate) -> str:
    name, speed, difference = recorded.name, recorded.speed, recorded.difference
    return (
        f"engine: {name} ({recorded.directory}); when it was exported, {speed:.1f} times as fast as torch in the "
        f"precision of the run, logit difference {difference:.1e}"
    )
