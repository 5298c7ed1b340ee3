"""What this machine is, and what follows from that: device, precision, and the accelerator that holds both."""

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
from afqmc.models.padding_free import can_pack
from afqmc.training.config import Device, DistributedConfig, MixedPrecision, PerformanceConfig, TrainerConfig
from afqmc.training.parallel import build_fsdp_plugin, force_fsdp, init_process_group
from afqmc.training.process_checks import USES_FSDP
from afqmc.utils.errors import InputError
from afqmc.utils.process import usable_cores


@dataclass(frozen=True)
class DeviceConfig:
    """A device, a precision, and why."""

    device: str
    precision: str
    reason: str


def select_device(config: TrainerConfig) -> DeviceConfig:
    """Resolve ``auto``, and hold what was asked for to what is there.

    Raises:
        InputError: naming the key, and what this machine has.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device is Device.auto:
        device = next(name for name in ("cuda", "mps", "cpu") if present[name])
    else:
        device = config.device.value
        if not present[device]:
            why = (
                "this PyTorch is a build without it"
                if device == "cuda" and torch.version.cuda is None
                else "none is visible"
            )
            there = ", ".join(name for name, current_rank in present.items() if current_rank)
            raise InputError(f"trainer.device={device}: not on this machine ({why}); legal here: auto, {there}")
    if config.mixed_precision is MixedPrecision.auto:
        return DeviceConfig(device, *_fast_precision(device))
    wanted = config.mixed_precision.value
    if wanted == "fp16" and device == "cpu":
        raise InputError("trainer.mixed_precision=fp16: needs a GPU; legal on this machine: auto, no, bf16")
    return DeviceConfig(device, wanted, "as configured")


def _fast_precision(device: str) -> tuple[str, str]:
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
    """An Accelerate engine for this run alone: seeded, and with no state left of an earlier run in this process.

    One of several processes joins the others.
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
        step_scheduler_with_optimizer=False,  # it would step once a process
        fsdp_plugin=plugin,
    )
    if plugin is not None:
        os.environ.pop(USES_FSDP, None)  # which Accelerate sets, and the next run of this process would obey
        force_fsdp(accelerator, plugin)
    return accelerator


def prepare_model(
    model: nn.Module, choice: DeviceConfig, config: TrainerConfig, performance: PerformanceConfig
) -> None:
    """Apply device-specific and configured optimisations. They do not change the model's function.

    Raises:
        InputError: when the model cannot be changed so.
    """
    if choice.device == "cpu":
        use_fast_cpu_kernels(model, performance.fast_cpu_dropout)
    if isinstance(model, CrossEncoder):
        model.use_4d_mask = choice.device != "cpu" and can_pack(model.encoder)
        if performance.padding_free:
            enable_padding_free(model)
    elif performance.padding_free:
        raise InputError("performance.padding_free=true: not for a model of your own (model._target_)")
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if performance.torch_compile is not None:
        model.compile(dynamic=True, mode=performance.torch_compile.value)


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Let the encoder keep the inputs of its layers alone, and compute the rest again in the backward pass.

    Raises:
        InputError: for a model that knows nothing of this.
    """
    encoder = model.encoder if isinstance(model, CrossEncoder) else model
    if not isinstance(encoder, PreTrainedModel) or not encoder.supports_gradient_checkpointing:
        raise InputError("trainer.gradient_checkpointing=true: this model does not support it")
    older = "gradient_checkpointing_enable"  # its name in transformers before 5.2x
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, older)
    enable({"use_reentrant": False})


def hardware_info(choice: DeviceConfig) -> dict[str, Any]:
    """The machine and what was chosen on it, for environment.json."""
    gpu = torch.cuda.get_device_name() if choice.device == "cuda" else None
    return {
        "device": choice.device,
        "gpu": gpu,
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "processes": current_rank().world_size,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "mixed_precision": choice.precision,
        "mixed_precision_reason": choice.reason,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes that were in use at once at most: of a GPU, by this process's tensors; else by this process, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
