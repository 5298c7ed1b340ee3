"""Select device and precision, build the Accelerate engine, and prepare a model for the device."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedModel

from afqmc.distributed.rank import current_rank, hide_from_accelerate
from afqmc.models.cpu_kernels import use_fast_cpu_kernels
from afqmc.models.cross_encoder import CrossEncoder, enable_padding_free
from afqmc.models.first_token import skip_unused_tokens
from afqmc.models.padding_free import can_pack
from afqmc.training.config import Device, DistributedConfig, MixedPrecision, PerformanceConfig, TrainerConfig
from afqmc.training.parallel import build_fsdp_plugin, force_fsdp, init_process_group
from afqmc.training.process_checks import USES_FSDP
from afqmc.utils.errors import InputError
from afqmc.utils.process import usable_cores


@dataclass(frozen=True)
class DeviceConfig:
    """A device, a precision, and the reason for that precision."""

    device: str
    precision: str
    reason: str


def select_device(config: TrainerConfig) -> DeviceConfig:
    """Return the configured device and precision, ``auto`` resolved.

    Raises:
        InputError: when this machine does not have them; names the key and what is allowed here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device is Device.auto:
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    else:
        device = config.device.value
        if not available[device]:
            is_cpu_build = device == "cuda" and torch.version.cuda is None
            reason = "this PyTorch is a build without it" if is_cpu_build else "none is visible"
            allowed = ", ".join(name for name, is_available in available.items() if is_available)
            raise InputError(f"trainer.device={device}: not on this machine ({reason}); allowed here: auto, {allowed}")
    if config.mixed_precision is MixedPrecision.auto:
        return DeviceConfig(device, *_auto_precision(device))
    precision = config.mixed_precision.value
    if precision == "fp16" and device == "cpu":
        raise InputError("trainer.mixed_precision=fp16: needs a GPU; allowed on this machine: auto, no, bf16")
    return DeviceConfig(device, precision, "as configured")


def _auto_precision(device: str) -> tuple[str, str]:
    if device == "cuda":
        major, _ = torch.cuda.get_device_capability()
        return ("bf16", "this GPU has bf16 matrix units") if major >= 8 else ("no", "this GPU has no bf16 matrix units")
    if device == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16", "this CPU has AMX"
    if device == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16", "this CPU has AVX512-BF16"
    return "no", "bf16 is not known to be faster here"


def build_accelerator(
    choice: DeviceConfig, config: TrainerConfig, distributed: DistributedConfig, seed: int
) -> Accelerator:
    """Build the Accelerate engine of a run, join its process group, and seed the random generators.

    State that an earlier run in this process has left in Accelerate is reset.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    init_process_group(distributed, current_rank())
    hide_from_accelerate()
    set_seed(seed)
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    plugin = build_fsdp_plugin(distributed)
    accelerator = Accelerator(
        mixed_precision=choice.precision,
        cpu=choice.device == "cpu",
        step_scheduler_with_optimizer=False,  # which would step once per process
        fsdp_plugin=plugin,
    )
    if plugin is not None:
        os.environ.pop(USES_FSDP, None)  # set by Accelerate; the next run in this process would use FSDP too
        force_fsdp(accelerator, plugin)
    return accelerator


def prepare_model(
    model: nn.Module, choice: DeviceConfig, config: TrainerConfig, performance: PerformanceConfig
) -> None:
    """Apply device-specific and configured optimisations. They do not change the model's function.

    Raises:
        InputError: when the model does not support one of them; names the key.
    """
    if choice.device == "cpu":
        use_fast_cpu_kernels(model, performance.fast_cpu_dropout)
    if isinstance(model, CrossEncoder):
        model.use_4d_mask = choice.device != "cpu" and can_pack(model.encoder)
        if performance.padding_free:
            enable_padding_free(model)
        if performance.skip_unused_tokens:
            skip_unused_tokens(model)
    elif performance.padding_free:
        raise InputError("performance.padding_free=true: not with a custom model (model._target_)")
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if performance.torch_compile is not None:
        model.compile(dynamic=True, mode=performance.torch_compile.value)


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Keep only the inputs of the encoder's layers, and recompute the rest in the backward pass.

    Raises:
        InputError: when the model does not support it.
    """
    encoder = model.encoder if isinstance(model, CrossEncoder) else getattr(model, "lm", model)
    if not isinstance(encoder, PreTrainedModel) or not encoder.supports_gradient_checkpointing:
        raise InputError("trainer.gradient_checkpointing=true: this model does not support it")
    old_name = "gradient_checkpointing_enable"  # in transformers before 5.2x
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, old_name)
    enable({"use_reentrant": False})


def hardware_info(choice: DeviceConfig) -> dict[str, Any]:
    """Return the machine, device and precision, for environment.json."""
    return {
        "device": choice.device,
        "gpu": torch.cuda.get_device_name() if choice.device == "cuda" else None,
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "processes": current_rank().world_size,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "mixed_precision": choice.precision,
        "mixed_precision_reason": choice.reason,
    }


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: its tensors on a GPU, or else all of it in host memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
