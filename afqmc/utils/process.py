"""Process-wide settings around ``import torch``: UTF-8 mode, thread count, spin-wait, malloc, garbage collector."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
_MALLOC_THRESHOLD = 1 << 30  # bytes
_KERNELS = 128  # per cache: some shapes of each layer
_SPIN_COUNT = 2000  # on 2 cores: 0.92 of the default's speed alone, and 10 times its speed beside another job


def reexec_in_utf8_mode() -> None:
    """Restart an ``afqmc`` command in Python's UTF-8 mode if the locale cannot encode Chinese (ASCII, Latin-1).

    Python decodes the arguments before this code runs, so wrongly decoded ones can only be corrected by a restart.
    """
    command = getattr(sys.modules["__main__"], "__spec__", None)
    if command is None or not command.name.startswith("afqmc.") or "utf8" in sys._xoptions:
        return
    try:
        "数据".encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        os.environ["PYTHONUTF8"] = "1"  # for child processes
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def configure_threads(jobs_at_once: int = 1, threads: int | None = None) -> None:
    """Set thread count, spin-wait and allocator for training. Environment variables set by the user take precedence.

    * ``OMP_NUM_THREADS``: the usable cores, divided by the number of parallel jobs.
    * ``OPENBLAS_NUM_THREADS``: 1. NumPy and SciPy solve only small problems here, such as fitting a temperature, where
      waking more threads takes many times as long as computing. Only on x86, where PyTorch does not use OpenBLAS.
    * ``GOMP_SPINCOUNT``: waiting threads spin for a few microseconds, then sleep. By default they spin for
      milliseconds, which slows down other jobs on the same cores. Without any spinning, a small model trains at half
      its speed.
    * malloc keeps freed blocks of up to 1 GiB: PyTorch allocates the same large blocks in each step, and the kernel
      would have to clear fresh ones.

    Args:
        jobs_at_once: Jobs that run on this machine in parallel, such as those of a sweep.
        threads: The number of threads to use if there are as many cores; by default all.
    """
    usable = max(1, usable_cores() // jobs_at_once)
    os.environ.setdefault("OMP_NUM_THREADS", str(min(usable, threads or usable)))
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))
    tune_malloc()


def tune_malloc() -> None:
    """Let glibc keep freed blocks of up to 1 GiB. Does nothing with other allocators."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl does not have it
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MALLOC_THRESHOLD)
            mallopt(_M_TRIM_THRESHOLD, _MALLOC_THRESHOLD)


@contextmanager
def importing_libraries() -> Iterator[None]:
    """Pause Python's garbage collector while torch and other libraries are imported within this context.

    They create some hundred thousand objects that live as long as the process. The collector would visit all of them
    again and again, which takes a fifth of the time. Later collections do not visit them either, because they are
    frozen. Does nothing if torch is imported already.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def limit_kernel_caches() -> None:
    """Limit PyTorch's and oneDNN's caches of compiled kernels on the CPU. Variables set by the user take precedence.

    Each shape of a batch adds kernels. The batches of a service have thousands of shapes: with the default of 1024
    entries per cache, its memory grew by 900 MiB over 50,000 requests.
    """
    for variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(_KERNELS))


def usable_cores() -> int:
    """Return how many cores this process may use, by its CPU affinity and the quota of its control groups.

    joblib's ``cpu_count`` reads the root control group only, and so misses the quota of a Slurm job or systemd unit.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU quota of this process's Linux control groups (v1 or v2), in cores; infinity without one.

    Containers are limited this way: with docker's ``--cpus=2``, all cores of the machine stay visible.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        group = top / name.lstrip("/")
        quotas += [_group_quota(path) for path in (group, *group.parents) if path.is_relative_to(top)]
    return min(quotas)


def _group_quota(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf
