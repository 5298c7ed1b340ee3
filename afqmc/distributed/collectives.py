"""What the processes of a run work out together; one that is alone gets back what it gave."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch import distributed as dist


def all_reduce_max(accelerator: Accelerator, *values: int) -> list[int]:
    """The largest that any process gave, of each value.

    It is computed on the host, so that no process waits for its device: CPU tensors go over gloo.
    """
    if accelerator.num_processes == 1:
        return list(values)
    found = torch.tensor(values)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [int(value) for value in found]


def broadcast_object(accelerator: Accelerator, value: Any) -> Any:
    """What the main process gave: any small plain value."""
    return value if accelerator.num_processes == 1 else broadcast_object_list([value])[0]


def all_gather_objects(accelerator: Accelerator, value: Any) -> list[Any]:
    """What each process gave, in the order of their ranks."""
    return [value] if accelerator.num_processes == 1 else list(gather_object([value]))


def broadcast_state(accelerator: Accelerator, state: Any) -> Any:
    """A nested state of the main process; its tensors, on the CPU, are sent one by one and never pickled."""
    if accelerator.num_processes == 1:
        return state
    tensors: list[Tensor] = []
    outline = broadcast_object(accelerator, _split_tensors(state, tensors) if accelerator.is_main_process else None)
    return _fill_tensors(outline, iter(tensors) if accelerator.is_main_process else None)


def _split_tensors(node: Any, tensors: list[Tensor]) -> Any:
    """The state with a stand-in for each tensor, which is put into the list."""
    if isinstance(node, Tensor):
        tensors.append(node.contiguous())
        return torch.empty_like(node, device="meta")
    if isinstance(node, dict):
        return {key: _split_tensors(value, tensors) for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(_split_tensors(value, tensors) for value in node)
    return node


def _fill_tensors(node: Any, tensors: Any) -> Any:
    if isinstance(node, Tensor):
        found = torch.empty_like(node, device="cpu") if tensors is None else next(tensors)
        dist.broadcast(found, 0)
        return found
    if isinstance(node, dict):
        return {key: _fill_tensors(value, tensors) for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(_fill_tensors(value, tensors) for value in node)
    return node
