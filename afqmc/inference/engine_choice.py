"""Choose the engine of a predictor: one by name, that of an export, or the fastest one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from afqmc.checkpoint.weights import Loaded
from afqmc.data.pairs import Pairs
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.decision import DECISION_FILE
from afqmc.inference.engine_timing import Autocast, cached_speeds, measure_speeds
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
from afqmc.models.cpu_kernels import keep_linear_weights_in_bf16, use_fast_cpu_kernels
from afqmc.models.first_token import skip_unused_tokens
from afqmc.run_dir import RunDir
from afqmc.training.device import DeviceConfig, cpu_name
from afqmc.utils.environment import package_version
from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import sha256

log = logging.getLogger(__name__)

_AUTO = "auto"
_EXPORTED = (ONNX, OPENVINO, OPENVINO_BF16)


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a predictor.

    Attributes:
        name: Of the engine.
        directory: Of the export that it runs; None for PyTorch.
        note: Says which engine was chosen, and why; "" if none was asked for.
    """

    name: str = TORCH
    directory: Path | None = None
    note: str = ""


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

    @property
    def label(self) -> str:
        """The name, and that of the export's directory if an export is run."""
        return self.name if self.name == TORCH_BF16 else f"{self.name} ({self.directory})"


def select_engine(
    wanted: str | EngineChoice,
    run: RunDir,
    loaded: Loaded,
    pair_tokenizer: PairTokenizer,
    device: DeviceConfig,
    read_dev: Callable[[], Pairs],
) -> tuple[nn.Module | None, EngineChoice]:
    """Return the module that computes logits, None for plain torch, and the choice.

    Args:
        wanted: ``auto``, an engine, the directory of an export, or an earlier choice, which is opened again.
        run: The run.
        loaded: Its weights.
        pair_tokenizer: Its tokenizer.
        device: Of plain torch.
        read_dev: Returns the dev pairs, to time engines with; raises InputError if they are not on this machine.

    Raises:
        InputError: if there is no such engine or export, the engine is not installed, or the export is damaged,
            invalid, or not of these weights and this tokenizer.
    """
    if isinstance(wanted, EngineChoice):
        return _open_chosen(wanted, run, loaded, pair_tokenizer), wanted
    name = wanted
    if name == _AUTO:
        return _fastest(run, loaded, pair_tokenizer, device, read_dev)
    if name == TORCH_BF16:
        return _bf16(loaded), EngineChoice(name, note=f"engine: {name}")
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
    return _open(best, run, loaded, pair_tokenizer), _choice(best, _as_recorded(best))


def _fastest(
    run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer, device: DeviceConfig, read_dev: Callable[[], Pairs]
) -> tuple[nn.Module | None, EngineChoice]:
    """Return the fastest engine among those that are close enough and installed.

    A single candidate was timed in turns with PyTorch when it was exported. Several ones are timed in turns here.
    """
    if device.device != "cpu":
        return None, EngineChoice(note=f"engine: torch on {device.device}; the others run on the CPU")
    candidates = _candidates(run)
    if not candidates:
        note = f"engine: torch; no export in {run.exports} found a faster one for these weights on this processor"
        return None, EngineChoice(note=note)

    def open_module(candidate: Candidate) -> nn.Module:
        return _bf16(loaded) if candidate.name == TORCH_BF16 else _open(candidate, run, loaded, pair_tokenizer)

    best = max(candidates, key=lambda candidate: candidate.speed)
    why = _as_recorded(best)
    if len(candidates) > 1:
        plain = partial(_plain, loaded, device.precision)
        speeds = _speeds(candidates, open_module, plain, device.precision, pair_tokenizer, read_dev)
        if not speeds:
            why = f"{why}; dev is not on this machine, so the engines were not timed in turns"
            return open_module(best), _choice(best, why)
        best = max(candidates, key=lambda candidate: speeds[candidate.label])
        figures = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
        why = f"pairs/s on this machine, timed in turns: {figures}"
        if speeds[best.label] <= speeds[TORCH]:
            return None, EngineChoice(note=f"engine: {TORCH}; {why}")
    return open_module(best), _choice(best, why)


def _speeds(
    candidates: Sequence[Candidate],
    open_module: Callable[[Candidate], nn.Module],
    plain: Callable[[], nn.Module],
    precision: str,
    pair_tokenizer: PairTokenizer,
    read_dev: Callable[[], Pairs],
) -> dict[str, float]:
    """Return the pairs per second of PyTorch and the candidates by label, timed in turns; empty without dev."""

    def measure() -> dict[str, float]:
        try:
            dev = read_dev()
        except InputError:
            return {}
        engines = {TORCH: plain(), **{candidate.label: open_module(candidate) for candidate in candidates}}
        return measure_speeds(engines, dev, pair_tokenizer)

    exports = [[candidate.label, sha256(candidate.directory / MANIFEST)] for candidate in candidates]
    versions = [package_version(name) for name in ("afqmc", "torch", "onnxruntime", "openvino")]
    return cached_speeds([cpu_name(), torch.get_num_threads(), precision, exports, versions], measure)


def _prepared(loaded: Loaded) -> nn.Module:
    """Return a copy of the model with fast kernels; it may be prepared otherwise later."""
    model = copy.deepcopy(loaded.model)
    use_fast_cpu_kernels(model, fast_dropout=False)
    skip_unused_tokens(model)
    return model.eval()


def _plain(loaded: Loaded, precision: str) -> nn.Module:
    model = _prepared(loaded)
    if precision == "bf16":
        keep_linear_weights_in_bf16(model)
    return Autocast(model, precision)


def _candidates(run: RunDir) -> list[Candidate]:
    """Return the engines that were faster than PyTorch at export, within the tolerance, with these weights and here."""
    weights = sha256(run.best / "model.safetensors")
    candidates = {
        candidate.label: candidate
        for candidate in _recorded(run)
        if candidate.is_close
        and candidate.manifest.weights_sha256 == weights  # the best weights may have changed since
        and candidate.speed > 1
        and is_installed(candidate.name)
        and candidate.manifest.machine.get("processor") == cpu_name()
    }
    return list(candidates.values())


def _recorded(run: RunDir) -> Iterator[Candidate]:
    """Yield all engines that the valid exports of a run recorded, except plain torch."""
    for path in sorted(run.exports.glob(f"*/{MANIFEST}")):
        try:
            yield from _rows(path.parent)
        except InputError as error:
            log.warning("%s; it is skipped", error)


def _rows(directory: Path) -> Iterator[Candidate]:
    manifest = read_manifest(directory)
    speeds = {row["engine"]: float(row["pairs_per_second"]) for row in manifest.engines}
    for row in manifest.engines:
        name = row["engine"]
        if name in (TORCH_BF16, *_EXPORTED) and speeds.get(TORCH):
            difference, is_close = float(row["max_logit_difference"]), row["within_tolerance"] is True
            yield Candidate(name, directory, manifest, speeds[name] / speeds[TORCH], difference, is_close)


def _bf16(loaded: Loaded) -> nn.Module:
    return Bf16Engine(_prepared(loaded))


def _open(candidate: Candidate, run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer) -> nn.Module:
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
    return open_engine(candidate.name, directory)


def _open_chosen(choice: EngineChoice, run: RunDir, loaded: Loaded, pair_tokenizer: PairTokenizer) -> nn.Module | None:
    """Open the engine of a choice; None for plain torch."""
    if choice.name == TORCH:
        return None
    if choice.directory is None:
        return _bf16(loaded)
    [candidate] = [candidate for candidate in _rows(choice.directory) if candidate.name == choice.name]
    return _open(candidate, run, loaded, pair_tokenizer)


def _is_same_file(first: Path, second: Path) -> bool:
    return second.exists() and sha256(first) == sha256(second)


def _choice(candidate: Candidate, why: str) -> EngineChoice:
    directory = None if candidate.name == TORCH_BF16 else candidate.directory
    return EngineChoice(candidate.name, directory, f"engine: {candidate.label}; {why}")


def _as_recorded(candidate: Candidate) -> str:
    return (
        f"when it was exported, {candidate.speed:.1f} times as fast as torch in the precision of the run, logit "
        f"difference {candidate.difference:.1e}"
    )
