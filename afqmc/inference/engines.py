"""Engines: what computes the logits of tokenized batches. Plain PyTorch is the reference.

An engine is a module that maps token ids (B, T) to logits (B, C) in float32, as the model of a run does. A
``Predictor`` uses it in place of the model.
"""

from __future__ import annotations

import copy
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import check_regular

TORCH, TORCH_FLOAT32, TORCH_BF16 = "torch", "torch-float32", "torch-bf16"
ONNX, OPENVINO, OPENVINO_BF16 = "onnx", "openvino", "openvino-bf16"
PACKAGES = {ONNX: ("onnx", "onnxruntime"), OPENVINO: ("openvino",), OPENVINO_BF16: ("openvino",)}
ONNX_FILE, OPENVINO_FILE = "model.onnx", "openvino_model.xml"


class Bf16Engine(nn.Module):
    """PyTorch with weights in bfloat16: half the memory, and faster on CPUs with bfloat16 units."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(torch.bfloat16).eval()

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        logits: Tensor = self.model(**inputs)
        return logits.float()


class OnnxEngine(nn.Module):
    """ONNX Runtime on the CPU.

    Args:
        path: An untrusted ONNX file.

    Raises:
        InputError: if the file is invalid, or names other files, which ONNX Runtime would read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        _check_onnx(path)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # a share of the cores, with several workers
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises errors of many types
            raise InputError(f"{path}: ONNX Runtime cannot load it ({type(error).__name__})") from error
        self._names = [port.name for port in self._session.get_inputs()]

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        arrays = {name: inputs[name].numpy() for name in self._names}
        return torch.from_numpy(self._session.run(None, arrays)[0])


class OpenVinoEngine(nn.Module):
    """OpenVINO on the CPU.

    Args:
        path: An untrusted model of OpenVINO.
        precision: ``f32`` or ``bf16``, in which matrix products are computed.

    Raises:
        InputError: if the model is invalid.
    """

    def __init__(self, path: Path, precision: str) -> None:
        super().__init__()
        openvino = import_openvino()
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        for file in (path, path.with_suffix(".bin")):
            check_regular(file)
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(path), "CPU", options)
        except Exception as error:  # OpenVINO raises errors of many types
            raise InputError(f"{path}: OpenVINO cannot load it ({type(error).__name__})") from error
        self._names = [port.any_name for port in self._compiled.inputs]

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        result = self._compiled({name: inputs[name].numpy() for name in self._names})
        return torch.from_numpy(result[0].copy())


def import_openvino() -> Any:
    """Import OpenVINO without the package by which its converter sends statistics of its use to a server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def open_engine(name: str, directory: Path) -> nn.Module:
    """Open an exported model with an engine.

    Raises:
        InputError: if the engine is not installed, or cannot load the model.
    """
    require_engine(name)
    if name == ONNX:
        return OnnxEngine(directory / ONNX_FILE)
    return OpenVinoEngine(directory / OPENVINO_FILE, "bf16" if name == OPENVINO_BF16 else "f32")


def is_installed(name: str) -> bool:
    """Return whether the packages of an engine are installed."""
    return all(find_spec(package) is not None for package in PACKAGES.get(name, ()))


def require_engine(name: str) -> None:
    """Check that an engine is installed.

    Raises:
        InputError: naming the package.
    """
    missing = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if missing:
        raise InputError(f"--engine {name}: needs {', '.join(missing)}; pip install 'afqmc[export]'")


def _check_onnx(path: Path) -> None:
    """Check that an ONNX file keeps all weights in itself: external data may be any file of this machine."""
    import onnx
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    check_regular(path)
    try:
        model = onnx.load(path, load_external_data=False)
        external = any(uses_external_data(tensor) for tensor in _get_all_tensors(model))
    except Exception as error:  # protobuf raises errors of many types
        raise InputError(f"{path}: is not an ONNX model ({type(error).__name__})") from error
    if external:
        raise InputError(f"{path}: names other files as weights; an export of this project does not")
