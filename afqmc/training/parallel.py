"""DDP and FSDP: wrap a model for several processes, gather its sharded state, and load it again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from afqmc.data.batching import Batch
from afqmc.distributed.rank import Rank
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.training.config import DistributedConfig, FsdpSharding, Strategy

_destroyed_groups: list[Any] = []  # see destroy_process_group


def init_process_group(config: DistributedConfig, rank: Rank) -> None:
    """Initialise the process group of a run (gloo for CPU tensors, NCCL for CUDA tensors); nothing for one process."""
    if not rank.is_single and not dist.is_initialized():
        get_coordinator().wait_for_all()
        dist.init_process_group(timeout=timedelta(seconds=config.process_group_timeout_s))


def destroy_process_group() -> None:
    """Destroy the process group, but keep the object until the process ends.

    Otherwise it would be freed along with the last DDP model that refers to it. The main thread would then wait for
    gloo's thread while holding the GIL, which gloo's thread needs to release its last work: a deadlock.
    """
    if dist.is_initialized():
        _destroyed_groups.append(dist.group.WORLD)
        dist.destroy_process_group()


def build_fsdp_plugin(config: DistributedConfig) -> FullyShardedDataParallelPlugin | None:
    """Return the FSDP plugin for Accelerate, None with DDP. Precision is left to autocast, as with one process."""
    if config.strategy is not Strategy.fsdp:
        return None
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=config.fsdp_sharding is FsdpSharding.full_shard,
        cpu_offload=config.fsdp_cpu_offload,
        auto_wrap_policy="transformer_based_wrap",
        mixed_precision_policy=MixedPrecisionPolicy(),
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
    )


def force_fsdp(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Make Accelerate use FSDP on CPUs too, where it is tested; by default it uses it on GPUs only."""
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP


def wrap(
    model: nn.Module, optimizer: Optimizer, accelerator: Accelerator, probe: Batch | None = None
) -> tuple[nn.Module, Optimizer]:
    """Return model and optimizer prepared for training on one or several processes.

    Args:
        model: In float32.
        optimizer: Over its parameters.
        accelerator: Device, precision and processes.
        probe: With several processes, a few pairs. A backward pass over them shows whether there are parameters that
            the loss does not depend on, since DDP would wait for their gradients.
    """
    if accelerator.is_fsdp2:
        encoder = model.encoder if isinstance(model, CrossEncoder) else model
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(encoder)
    elif probe is not None:
        if _has_unused_parameters(model, probe):
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        # DDP broadcasts buffers before each forward pass; integers (positions, counters) and buffers that are not saved
        # (constants) are the same in all ranks
        saved = {*model.state_dict()}
        constant = [
            name for name, buffer in model.named_buffers() if not buffer.is_floating_point() or name not in saved
        ]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            model, constant
        )
    wrapped_model, wrapped_optimizer = accelerator.prepare(model, optimizer)
    return wrapped_model, wrapped_optimizer


def layer_classes(encoder: nn.Module) -> list[str]:
    """Return the class names of the layers that FSDP wraps, and gathers one at a time.

    Some models of transformers (MegatronBERT, ELECTRA) do not name them in ``_no_split_modules``. There, the layers
    are the modules in a ``ModuleList``. Without any layers, FSDP would gather the whole model at once.
    """
    existing = {type(module).__name__ for module in encoder.modules()}
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    in_lists = {type(layer).__name__ for layers in lists for layer in layers}
    return sorted(set(getattr(encoder, "_no_split_modules", None) or ()) & existing or in_lists)


def _has_unused_parameters(model: nn.Module, batch: Batch) -> bool:
    model(**batch.inputs).sum().backward()
    unused = any(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model.zero_grad(set_to_none=True)
    return unused


def gather_full(state: Any, keep: bool = True) -> Any:
    """Return a nested state with each sharded tensor gathered to the host; other tensors are the same objects.

    All processes must call it. Those with ``keep=False`` get None in place of gathered tensors.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if keep else None
    if isinstance(state, dict):
        return {key: gather_full(value, keep) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(gather_full(value, keep) for value in state)
    return state


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load full weights into a model, which may be sharded. All processes call it with the same weights.

    Raises:
        RuntimeError: when names or shapes differ.
    """
    if isinstance(model, FSDPModule):
        sharded = model.state_dict()
        state = {name: shard_like(tensor, sharded.get(name)) for name, tensor in state.items()}
    model.load_state_dict(state)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a full state into an optimizer, whose parameters may be sharded; the state is the same in all processes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        sharded = {
            index: {name: shard_like(value, parameters[int(index)]) for name, value in entry.items()}
            for index, entry in state["state"].items()
        }
        state = {**state, "state": sharded}
    optimizer.load_state_dict(state)


def shard_like(value: Any, target: Any) -> Any:
    """Shard a full tensor as ``target`` is sharded, without communication; return any other value unchanged.

    Values of another shape than ``target``, such as an optimizer's step count, are not sharded.
    """
    if not isinstance(target, DTensor) or not isinstance(value, Tensor) or value.shape != target.shape:
        return value
    local = value.to(target.device_mesh.device_type, target.dtype)
    sharded = distribute_tensor(local, target.device_mesh, target.placements, src_data_rank=None)
    return sharded.to(target.device) if target.device != sharded.device else sharded


def reshard(model: nn.Module) -> None:
    """Make ``model.parameters()`` the sharded ones again; after an evaluation, some are still gathered copies."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_norm(value: Tensor) -> Tensor:
    """Return the norm of sharded gradients as a plain tensor, (); that of plain gradients unchanged."""
    return value.full_tensor() if isinstance(value, DTensor) else value
