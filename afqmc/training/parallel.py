"""DDP and FSDP, both by Accelerate and PyTorch: a model spread over processes, and its state whole again."""

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

_kept: list[Any] = []


def init_process_group(config: DistributedConfig, rank: Rank) -> None:
    """Initialise the process group of a run (gloo for CPU tensors, NCCL for CUDA tensors)."""
    if not rank.is_single and not dist.is_initialized():
        get_coordinator().wait_for_all()
        dist.init_process_group(timeout=timedelta(seconds=config.process_group_timeout_s))


def destroy_process_group() -> None:
    """Close what ``init_process_group`` opened.

    The group itself is kept until the process ends. Were it to go with the last model that was trained by it, the main
    thread would wait, with Python's lock held, for gloo's own thread, and that for the lock, to drop its last work.
    """
    if dist.is_initialized():
        _kept.append(dist.group.WORLD)
        dist.destroy_process_group()


def build_fsdp_plugin(config: DistributedConfig) -> FullyShardedDataParallelPlugin | None:
    """Return the FSDP plugin for Accelerate. Precision is left to autocast, as with one process."""
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
    """Let Accelerate use FSDP on CPUs too, where it is tested; by itself it does so on GPUs only."""
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP


def wrap(
    model: nn.Module, optimizer: Optimizer, accelerator: Accelerator, probe: Batch | None = None
) -> tuple[nn.Module, Optimizer]:
    """Prepare both for training on this process, or these.

    Args:
        model: In float32.
        optimizer: Over its parameters.
        accelerator: The engine.
        probe: Some pairs, to see with DDP which parameters the loss does not depend on; DDP waits for these otherwise.
    """
    if accelerator.is_fsdp2:
        encoder = model.encoder if isinstance(model, CrossEncoder) else model
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(encoder)
    elif probe is not None:
        if _has_unused(model, probe):
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        # positions and counters are the same everywhere; only a buffer of figures is worth sending before each pass
        constant = [name for name, buffer in model.named_buffers() if not buffer.is_floating_point()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            model, constant
        )
    prepared, taken = accelerator.prepare(model, optimizer)
    return prepared, taken


def layer_classes(encoder: nn.Module) -> list[str]:
    """The classes of the layers that are put together one at a time; without any the whole model would be, at once.

    Not all of transformers' models name them (MegatronBERT and ELECTRA do not): then what stands in lists.
    """
    there = {type(module).__name__ for module in encoder.modules()}
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    listed = {type(layer).__name__ for layers in lists for layer in layers}
    return sorted(set(getattr(encoder, "_no_split_modules", None) or ()) & there or listed)


def _has_unused(model: nn.Module, batch: Batch) -> bool:
    model(**batch.inputs).sum().backward()
    unused = any(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model.zero_grad(set_to_none=True)
    return unused


def gather_full(state: Any, keep: bool = True) -> Any:
    """A nested state with each sharded tensor put together, on the host.

    All processes call it; those that do not ``keep`` it get None in the tensor's place.
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
    """Put whole weights into a model, each process its own shard of them.

    Raises:
        RuntimeError: where names or shapes differ.
    """
    if not isinstance(model, FSDPModule):
        model.load_state_dict(state)
        return
    own = model.state_dict()
    model.load_state_dict({name: _local_shard(tensor, own.get(name)) for name, tensor in state.items()})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put a whole state into an optimizer, of each parameter its own shard of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        kept = {
            number: {name: _local_shard(value, parameters[int(number)]) for name, value in entry.items()}
            for number, entry in state["state"].items()
        }
        state = {**state, "state": kept}
    optimizer.load_state_dict(state)


def _local_shard(tensor: Any, placed: Any) -> Any:
    """The own shard of a tensor that is as large as a sharded one; nothing is sent, since all have the whole."""
    if not isinstance(placed, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != placed.shape:
        return tensor
    local = tensor.to(placed.device_mesh.device_type, placed.dtype)
    sharded = distribute_tensor(local, placed.device_mesh, placed.placements, src_data_rank=None)
    return sharded.to(placed.device) if placed.device != sharded.device else sharded


def full_norm(value: Tensor) -> Tensor:
    """A norm that sharded gradients have, as a plain number."""
    return value.full_tensor() if isinstance(value, DTensor) else value
