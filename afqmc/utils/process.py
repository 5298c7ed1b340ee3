"""What a process is told before torch is imported: its letters, its threads, how they wait, how memory is kept."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30  # bytes
_SPINS = 2000  # seen on 2 cores: 0.92 of the speed alone, and 10 times that of endless spinning beside another job


def reexec_in_utf8_mode() -> None:
    """Start a command again in Python's UTF-8 mode where the encoding of its locale has no Chinese (ASCII, Latin-1).

    Arguments and file names were then read with the wrong letters before the first line of this package ran.
    """
    command = getattr(sys.modules["__main__"], "__spec__", None)
    if command is None or not command.name.startswith("afqmc.") or "utf8" in sys._xoptions:
        return
    try:
        "数据".encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        os.environ["PYTHONUTF8"] = "1"  # for processes of its own
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def configure_threads(jobs_at_once: int = 1) -> None:
    """Make this process a good place to train in; what a person has set in the environment stays.

    * ``OMP_NUM_THREADS``: the cores this process may use, shared among the jobs that run at once.
    * ``GOMP_SPINCOUNT``: threads that wait for others spin for a few microseconds, then sleep. By default they spin for
      milliseconds, and two jobs on the same cores wait for each other's spinning; never to spin costs a small model
      half its speed.
    * The allocator keeps freed memory up to 1 GiB a block instead of returning it: PyTorch asks for the same large
      blocks in each step, and fresh ones cost the kernel's time to clear.

    Args:
        jobs_at_once: Jobs that share this machine, such as those of a parallel sweep.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // jobs_at_once)))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    tune_malloc()


def tune_malloc() -> None:
    """Let the allocator of glibc keep blocks of up to 1 GiB; others are left alone."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEPT)
            mallopt(_M_TRIM_THRESHOLD, _KEPT)


def usable_cores() -> int:
    """Cores this process may use: those it may run on, or fewer where its control group has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that the control groups of this process grant (Linux, version 2 or 1); else infinity.

    A container is a control group: docker's ``--cpus=2`` on a machine of 64 cores leaves all 64 visible.
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
        quotas += [_quota(place) for place in (group, *group.parents) if place.is_relative_to(top)]
    return min(quotas)


def _quota(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf
