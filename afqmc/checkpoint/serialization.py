"""Any state of a training as two plain files: tensors as safetensors, everything else as JSON. Nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import LARGE, check_regular, read_json

_TENSORS, _REST = "state.safetensors", "state.json"
_TENSOR, _TUPLE, _PAIRS = "$tensor", "$tuple", "$dict"  # how JSON holds what it has no word for


def clone_to_cpu(node: Any) -> Any:
    """A nested state with each tensor copied to host memory: what happens to the original is no matter to it."""
    if isinstance(node, Tensor):
        return node.detach().to("cpu", copy=True).contiguous()
    if isinstance(node, dict):
        return {key: clone_to_cpu(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(clone_to_cpu(value) for value in node) if type(node) in (list, tuple) else node
    return node


def write_state(directory: Path, state: Any) -> None:
    """Write a nested state of dicts, lists, tuples, tensors and plain values.

    Raises:
        TypeError: naming the place of a value of any other kind.
    """
    tensors: dict[str, Tensor] = {}
    rest = _plain(state, "", tensors)
    save_file(tensors, directory / _TENSORS)
    (directory / _REST).write_text(json.dumps(rest), encoding="utf-8")


def read_state(directory: Path) -> Any:
    """What ``write_state`` wrote, tensors on the CPU.

    Raises:
        InputError: when it is not such a state.
    """
    try:
        check_regular(directory / _TENSORS)
        return _nested(read_json(directory / _REST, LARGE), load_file(directory / _TENSORS))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{directory}: no readable state ({type(error).__name__}: {error})") from error


def _plain(node: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = place or "state"
        tensors[name] = node
        return {_TENSOR: name}
    if isinstance(node, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in node):
            return {key: _plain(value, f"{place}/{key}", tensors) for key, value in node.items()}
        return {_PAIRS: [[key, _plain(value, f"{place}/{key}", tensors)] for key, value in node.items()]}
    if type(node) in (list, tuple):
        values = [_plain(value, f"{place}/{number}", tensors) for number, value in enumerate(node)]
        return values if isinstance(node, list) else {_TUPLE: values}
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"{place}: cannot save a {type(node).__name__}")


def _nested(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_nested(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        return tensors[node[_TENSOR]]
    if _TUPLE in node:
        return tuple(_nested(value, tensors) for value in node[_TUPLE])
    if _PAIRS in node:
        return {key: _nested(value, tensors) for key, value in node[_PAIRS]}
    return {key: _nested(value, tensors) for key, value in node.items()}
