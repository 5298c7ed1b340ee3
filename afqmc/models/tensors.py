"""Prepare a model's state for safetensors: store shared tensors once, and check that all of it can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from afqmc.utils.errors import InputError


def without_duplicates(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Remove tied tensors from a state, since tensors in safetensors must not share memory.

    A tensor that shares only a part of its memory with another, such as a slice, is copied.

    Returns:
        The tensors, and the names of the removed ones, each with the name of the tensor that it is tied to.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    name_of_view: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        view = (storage, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride())
        if tensor.numel() and view in name_of_view:
            tied[name] = name_of_view[view]
            continue
        name_of_view[view] = name
        shares = storage in storages
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format) if shares else tensor.contiguous()
        storages.add(storage)
    return tensors, tied


def with_duplicates(tensors: dict[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """Undo ``without_duplicates``."""
    return {**{name: tensors[stored] for name, stored in tied.items()}, **tensors}


def check_state(model: nn.Module, key: str) -> None:
    """Check that the state of a model can be saved and loaded, before a run trains it for an epoch.

    Args:
        model: The model; its values do not change.
        key: Names the model in the message.

    Raises:
        InputError: with the entry that cannot be saved or loaded.
    """
    state = model.state_dict()
    for name, value in state.items():
        if problem := _problem(value):
            raise InputError(
                f"{key}: {name} in its state_dict() {problem}, which a checkpoint cannot store; "
                "register only dense tensors, or use persistent=False"
            )
    try:
        model.load_state_dict({name: value.clone() for name, value in state.items()})
    except Exception as error:  # the user's module may raise anything
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
