"""Write the graph of a model with the exporter of a library: ONNX, OpenVINO or ``torch.export``."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afqmc.data.batching import collate
from afqmc.data.loading import Pairs
from afqmc.data.tokenization import PairTokenizer
from afqmc.inference.engines import ONNX_FILE, OPENVINO_FILE, import_openvino
from afqmc.models.first_token import skip_unused_tokens
from afqmc.utils.errors import InputError, first_line

TORCH_FILE = "model.pt2"
_PROBES = (("怎么还款", "额度"), ("how to pay", "my limit"))
_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
_QUANTIZERS = {"onnx": (), "openvino": ("nncf",)}  # the formats with --int8, and the packages that it needs as well
_MAX_ONNX = (1 << 31) - (1 << 20)  # bytes: protobuf allows 2 GiB


class Graph(nn.Module):
    """The model with positional inputs, as the exporters need it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True)))
        return logits.float()


def check_packages(format: str, int8: bool) -> None:
    """Check that the packages of a format are installed, and those of its quantizer.

    Raises:
        InputError: naming those that are missing.
    """
    missing = [name for name in _PACKAGES.get(format, ()) if find_spec(name) is None]
    if missing:
        raise InputError(f"--format {format}: needs {', '.join(missing)}; pip install 'afqmc[export]'")
    missing = [name for name in _QUANTIZERS[format] if find_spec(name) is None] if int8 else []
    if missing:
        raise InputError(f"--format {format} --int8: needs {', '.join(missing)}; pip install 'afqmc[int8]'")


def trace(model: nn.Module, pair_tokenizer: PairTokenizer) -> tuple[Any, list[str]]:
    """Return the graph of a model on the CPU with dynamic batch size and length, and the names of its inputs.

    The model changes in place: its last layer computes only what the head reads.

    Raises:
        InputError: if ``torch.export`` does not support the model.
    """
    first, second = ([pair[side] for pair in _PROBES] for side in (0, 1))
    tokenized = pair_tokenizer.encode(Pairs("probes", [0, 1], first, second, None))
    inputs = collate(tokenized, tokenized.lengths.argsort(), pair_tokenizer).inputs
    names = list(inputs)
    skip_unused_tokens(model)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    graph = Graph(model, names).eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(
                graph, tuple(inputs.values()), dynamic_shapes=(tuple(dynamic for _ in names),), strict=False
            )
    except Exception as error:  # the exporter raises errors of many types
        raise _not_supported("torch", error) from error
    return program, names


def write_graph(directory: Path, format: str, program: Any, names: list[str], int8: bool) -> None:
    """Write ``onnx``, ``openvino`` or ``torch`` from the program of ``trace``.

    Raises:
        InputError: if the library does not support the model.
    """
    try:
        with torch.no_grad(), _quiet():
            if format == "torch":
                torch.export.save(program, directory / TORCH_FILE)
            else:
                {"onnx": _write_onnx, "openvino": _write_openvino}[format](directory, program, names, int8)
    except InputError:
        raise
    except Exception as error:  # the exporters raise errors of many types
        raise _not_supported(format, error) from error


def _write_onnx(directory: Path, program: Any, names: list[str], int8: bool) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > _MAX_ONNX:
        raise InputError("--format onnx: the model has more than 2 GiB; --format openvino has no limit")
    exported: Any = torch.onnx.export(program, input_names=names, output_names=["logits"], dynamo=True, verbose=False)
    exported.save(directory / ONNX_FILE, external_data=False)
    if int8:
        _quantize_onnx(directory)


def _write_openvino(directory: Path, program: Any, names: list[str], int8: bool) -> None:
    openvino = import_openvino()
    model = openvino.convert_model(program)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"logits"})
    if int8:
        model = _int8_weights(model)
    openvino.save_model(model, directory / OPENVINO_FILE, compress_to_fp16=False)


def _int8_weights(model: Any) -> Any:
    """Return an OpenVINO model with int8 weights; activations are quantised when it runs."""
    import nncf  # after import_openvino: otherwise it would send statistics of its use

    with redirect_stdout(io.StringIO()):  # it shows progress bars
        return nncf.compress_weights(model)


def _quantize_onnx(directory: Path) -> None:
    """Replace the ONNX model by one with int8 weights; activations are quantised when it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full = directory / f"float_{ONNX_FILE}"
    (directory / ONNX_FILE).rename(full)
    quantize_dynamic(full, directory / ONNX_FILE, weight_type=QuantType.QInt8, per_channel=True)
    full.unlink()


def _not_supported(format: str, error: Exception) -> InputError:
    return InputError(f"--format {format}: the exporter does not support this model ({first_line(error)})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings, which are about their own code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
