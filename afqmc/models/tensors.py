"""A model's state as tensors for a safetensors file: what is shared is saved once; what cannot be saved is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from afqmc.utils.errors import InputError


def without_duplicates(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state into tensors that share no memory, and the other names of tied ones with the name that is kept.

    A tensor that shares only part of its memory with another, such as a slice of it, is copied.
    """
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    kept: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        view = (storage, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride())
        if tensor.numel() and view in kept:
            same[name] = kept[view]
            continue
        kept[view] = name
        shares = storage in storages
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format) if shares else tensor.contiguous()
        storages.add(storage)
    return tensors, same


def with_duplicates(tensors: dict[str, Tensor], same: Mapping[str, str]) -> dict[str, Tensor]:
    """Undo ``without_duplicates``."""
    return {**{name: tensors[kept] for name, kept in same.items()}, **tensors}


def check_state(model: nn.Module, key: str) -> None:
    """Check that a model's state can be saved and loaded again, which a run does only after an epoch.

    Args:
        model: Ready for training; its values stay as they are.
        key: Names it in the message.

    Raises:
        InputError: naming the entry that cannot.
    """
    state = model.state_dict()
    for name, value in state.items():
        if problem := _problem(value):
            raise InputError(
                f"{key}: {name} in its state_dict() {problem}, which a checkpoint cannot hold; "
                "register dense tensors only, or persistent=False"
            )
    try:
        model.load_state_dict({name: value.clone() for name, value in state.items()})
    except Exception as error:  # whatever the user's module does
        reason = " ".join(str(error).split())
        raise InputError(f"{key}: its own state_dict() cannot be loaded again: {reason}") from error


def _problem(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if value.is_meta:
        return "is on the meta device, without values"
    if value.layout is not torch.strided or value.is_quantized:
        return f"is {'quantized' if value.is_quantized else str(value.layout).removeprefix('torch.')}"
    try:
        save({"": torch.empty(0, dtype=value.dtype)})
    except (KeyError, ValueError, SafetensorError):
        return f"is of type {str(value.dtype).removeprefix('torch.')}"
    return ""
