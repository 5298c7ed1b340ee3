"""Description of the machine, for the heading of a report."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "lightning",
    "sentence-transformers",
    "numpy",
    "afqmc",
)
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def describe_machine() -> dict[str, Any]:
    """Return processor, memory, versions, commit and current load."""
    info = _read("/proc/cpuinfo")
    flags = set(_search(r"^flags\s*:\s*(.+)$", info).split())
    return {
        "cpu": _search(r"^model name\s*:\s*(.+)$", info) or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "gpu": _gpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "environment": {key: os.environ[key] for key in sorted(os.environ) if re.match("(OMP|MKL|KMP|ONEDNN)_", key)},
        "commit": _commit(),
    }


def slug(machine: dict[str, Any]) -> str:
    """Return a name for files, such as ``amd-epyc-2-cores``."""
    if machine["gpu"]:
        return re.sub(r"\W+", "-", machine["gpu"].lower()).strip("-")
    cpu = re.sub(r"\(\w+\)|@.*|\b(cpu|processor)\b|\d+-core", "", machine["cpu"].lower())
    return re.sub(r"\W+", "-", cpu).strip("-") + f"-{machine['cores']}-cores"


def _gpu() -> str | None:
    """Return the name of the first GPU. A child process asks torch, so that this process stays small."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return process.stdout.strip() or None


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD")[:12] + (" with uncommitted changes" if git("diff", "HEAD") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else ""
