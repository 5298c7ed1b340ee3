"""Findings on this machine: device, memory, disk and tracker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from afqmc.config import Config
from afqmc.diagnostics.findings import Finding, fail, ok, warn
from afqmc.diagnostics.model import ModelSize
from afqmc.tracking.config import Backend, WandbMode
from afqmc.tracking.wandb_mode import logged_in, resolve_mode
from afqmc.training.device import DeviceConfig, cpu_name, select_device
from afqmc.utils.process import usable_cores

_GIB = 2**30
_ADAM_BYTES = 16  # per parameter: float32 weight, gradient and two moments


def device(config: Config, size: ModelSize | None, longest: int | None) -> Iterator[Finding]:
    """Report device and precision, and memory if the size of the model is known."""
    choice = select_device(config.trainer)
    name = torch.cuda.get_device_name() if choice.device == "cuda" else f"{cpu_name()}, {usable_cores()} cores"
    yield ok(
        "device",
        f"{choice.device} ({name}); precision {choice.precision}: {choice.reason}",
        device=choice.device,
        precision=choice.precision,
    )
    if size is not None and longest is not None:
        yield _memory(config, choice, size, longest)


def _memory(config: Config, choice: DeviceConfig, size: ModelSize, longest: int) -> Finding:
    batch = _activations(config, choice.precision, size, min(longest, config.dataset.max_length))
    needed = size.parameters * _ADAM_BYTES + batch
    free = torch.cuda.mem_get_info()[0] if choice.device == "cuda" else _free_memory()
    what = "weights, optimizer and one batch" if batch else "weights and optimizer"
    text = f"about {needed / _GIB:.1f} GiB needed for {what}; {free / _GIB:.1f} GiB free"
    facts = {"memory_needed_bytes": int(needed), "memory_free_bytes": int(free)}
    if needed > free:
        advice = "; raise trainer.gradient_accumulation_steps or lower batch_size or dataset.max_length"
        return fail("device", text + advice, **facts)
    return ok("device", text, **facts)


def _activations(config: Config, precision: str, size: ModelSize, longest: int) -> float:
    """Return the bytes of activations of the longest batch: s b h (34 + 5 a s / h) per layer in 16-bit precision.

    Source: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 2.
    """
    if size.hidden is None or size.layers is None or size.heads is None:
        return 0.0
    pairs = -(-config.batch_size // config.trainer.gradient_accumulation_steps)
    per_layer = longest * pairs * size.hidden * (34 + 5 * size.heads * longest / size.hidden)
    return per_layer * size.layers * (2 if precision == "no" else 1)


def tracker(config: Config) -> Iterator[Finding]:
    """Report where the metrics would be sent."""
    settings = config.tracker
    if settings.backend is Backend.none:
        yield ok("tracker", "none; local files only", mode="none")
        return
    resolved = resolve_mode(settings)
    mode = resolved.mode
    if resolved.warning:
        yield warn("tracker", f"W&B: {resolved.warning}", mode=mode)
    if mode == "online" and settings.mode is WandbMode.online and not logged_in():
        yield warn(
            "tracker",
            "tracker.mode=online: not logged in, so the run would be stored offline; "
            "`wandb login` or WANDB_API_KEY logs in",
            mode=mode,
        )
    elif mode == "online":
        yield ok("tracker", f"W&B: online, project {settings.project}", mode=mode)
    elif mode == "offline":
        yield ok("tracker", f"W&B: offline ({resolved.reason}); `wandb sync` sends the run later", mode=mode)
    else:
        yield ok("tracker", f"W&B: disabled ({resolved.reason})", mode=mode)


def disk(config: Config, size: ModelSize | None) -> Iterator[Finding]:
    """Report whether there is enough disk space for the weights in checkpoints."""
    # the best weights, the copy that is being written, and the weights of past evaluations
    copies = 2 + (config.checkpoint.keep_weights or 0)
    needed = copies * (size.parameters if size else 0) * 4
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / _GIB:.1f} GiB free here, about {needed / _GIB:.2f} GiB needed for checkpoints"
    finding = ok if free > needed else fail
    yield finding("disk", text, disk_needed_bytes=needed, disk_free_bytes=free)


def _free_memory() -> float:
    """Return the available memory in bytes: the kernel's estimate on Linux, else the total."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024.0
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
