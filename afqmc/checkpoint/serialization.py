"""Writes a nested training state as two files, tensors as safetensors and the rest as JSON, without pickle."""

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
_TENSOR, _TUPLE, _PAIRS = "$tensor", "$tuple", "$dict"  # marks of types that JSON lacks


def clone_to_cpu(node: Any, path: str = "") -> Any:
    """Copy a nested state to CPU memory, so that later changes to the original do not affect it.

    Args:
        node: Dicts, lists, tuples, tensors and plain values.
        path: Of ``node`` in the whole state, for the message.

    Raises:
        TypeError: naming the path to a value of any other type.
    """
    if isinstance(node, Tensor):
        return node.detach().to("cpu", copy=True).contiguous()
    if isinstance(node, dict):
        return {key: clone_to_cpu(value, f"{path}/{key}") for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(clone_to_cpu(value, f"{path}/{index}") for index, value in enumerate(node))
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"{path}: cannot save a {type(node).__name__}; convert it to numbers, strings, lists or tensors")


def write_state(directory: Path, state: Any) -> None:
    """Write a nested state that ``clone_to_cpu`` returned."""
    tensors: dict[str, Tensor] = {}
    rest = _to_json(state, "", tensors)
    save_file(tensors, directory / _TENSORS)
    (directory / _REST).write_text(json.dumps(rest), encoding="utf-8")


def read_state(directory: Path) -> Any:
    """Return the state that ``write_state`` wrote, with tensors on the CPU.

    Raises:
        InputError: if the files are missing or damaged.
    """
    try:
        check_regular(directory / _TENSORS)
        return _from_json(read_json(directory / _REST, LARGE), load_file(directory / _TENSORS))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{directory}: no readable state ({type(error).__name__}: {error})") from error


def _to_json(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = path or "state"
        tensors[name] = node
        return {_TENSOR: name}
    if isinstance(node, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in node):
            return {key: _to_json(value, f"{path}/{key}", tensors) for key, value in node.items()}
        return {_PAIRS: [[key, _to_json(value, f"{path}/{key}", tensors)] for key, value in node.items()]}
    if type(node) in (list, tuple):
        values = [_to_json(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]
        return values if isinstance(node, list) else {_TUPLE: values}
    return node


def _from_json(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_from_json(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        return tensors[node[_TENSOR]]
    if _TUPLE in node:
        return tuple(_from_json(value, tensors) for value in node[_TUPLE])
    if _PAIRS in node:
        return {key: _from_json(value, tensors) for key, value in node[_PAIRS]}
    return {key: _from_json(value, tensors) for key, value in node.items()}
