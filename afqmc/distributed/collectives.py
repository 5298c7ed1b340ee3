"""Collective operations over the ranks of a run. With a single process, each returns its argument."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch import distributed as dist


def all_reduce_max(accelerator: Accelerator, *values: int) -> list[int]:
    """Return the element-wise maximum over all ranks.

    The tensors are on the CPU and are sent over gloo, so that no rank has to wait for its GPU.
    """
    if accelerator.num_processes == 1:
        return list(values)
    maxima = torch.tensor(values)
    dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return [int(value) for value in maxima]


def broadcast_object(accelerator: Accelerator, value: Any) -> Any:
    """Return the value of rank 0; it is pickled, so it should be small and plain."""
    return value if accelerator.num_processes == 1 else broadcast_object_list([value])[0]


def all_gather_objects(accelerator: Accelerator, value: Any) -> list[Any]:
    """Return the values of all ranks, in the order of the ranks."""
    return [value] if accelerator.num_processes == 1 else list(gather_object([value]))


def broadcast_state(accelerator: Accelerator, state: Any) -> Any:
    """Return the nested state of rank 0, on the CPU. Tensors are broadcast one by one and are not pickled."""
    if accelerator.num_processes == 1:
        return state
    tensors: list[Tensor] = []
    skeleton = broadcast_object(accelerator, _split_tensors(state, tensors) if accelerator.is_main_process else None)
    return _fill_tensors(skeleton, iter(tensors) if accelerator.is_main_process else None)


def _split_tensors(node: Any, tensors: list[Tensor]) -> Any:
    """Return the state with a meta tensor in place of each tensor, and append the tensors to the list."""
    if isinstance(node, Tensor):
        tensors.append(node.contiguous())
        return torch.empty_like(node, device="meta")
    if isinstance(node, dict):
        return {key: _split_tensors(value, tensors) for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(_split_tensors(value, tensors) for value in node)
    return node


def _fill_tensors(node: Any, tensors: Any) -> Any:
    """Broadcast each tensor of the state; on ranks other than 0, ``tensors`` is None."""
    if isinstance(node, Tensor):
        tensor = torch.empty_like(node, device="cpu") if tensors is None else next(tensors)
        dist.broadcast(tensor, 0)
        return tensor
    if isinstance(node, dict):
        return {key: _fill_tensors(value, tensors) for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(_fill_tensors(value, tensors) for value in node)
    return node
