"""Locks on difficult file systems: without flock, without any locks, read-only, full."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL, command

from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import is_locked, locked

# Preloaded into a process, makes locks fail as on a file system without them.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int flock(int fd, int operation) { errno = ERROR; return -1; }
#ifdef NO_LOCKS
#define WRAP(name) \
  int name(int fd, int command, ...) { \
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    if (command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_SETLK || command == F_SETLKW) { \
      errno = ERROR; return -1; } \
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, #name); \
    return real(fd, command, argument); }
WRAP(fcntl)
WRAP(fcntl64)
#endif
"""
HOLDER = """
import sys
from pathlib import Path
from afqmc.utils.file_lock import is_locked, locked
with locked(Path(sys.argv[1]), "run"):
    assert is_locked(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """Return a function that builds the shim, and returns the environment that preloads it."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc, to build a library that answers as a file system without flock does")

    def build(error, *flags):
        target = tmp_path_factory.mktemp("shim") / "shim.so"
        (target.parent / "shim.c").write_text(SHIM)
        arguments = ["-shared", "-fPIC", f"-DERROR={error}", *flags, "-o", target, target.parent / "shim.c", "-ldl"]
        subprocess.run(["gcc", *arguments], check=True, capture_output=True)
        return {"LD_PRELOAD": str(target)}

    return build


def holding(directory, environment):
    """Start a process that holds the lock of a directory; return it and its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, process.stdout.readline()


@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def test_without_flock(tmp_path, preload, error):
    """Without flock the lock excludes other processes, and is released when its process is killed."""
    environment = preload(error)
    first, output = holding(tmp_path, environment)
    assert output == "held\n", first.stderr.read()
    second, output = holding(tmp_path, environment)
    assert output == ""
    assert f"another process is using this run (process {first.pid} on" in second.communicate(timeout=PATIENCE_S)[1]
    first.kill()
    first.communicate(timeout=PATIENCE_S)
    third, output = holding(tmp_path, environment)
    assert output == "held\n"
    third.communicate("", timeout=PATIENCE_S)


def test_without_any_locks(tmp_path, preload):
    """A sweep on a file system without locks is refused with one message."""
    environment = preload("ENOSYS", "-DNO_LOCKS")
    done = command("run", "-m", *SMALL, "seed=1,2", "sweep.name=s", cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("outputs/sweeps/s/.lock: this file system does not support file locks (Function not")
    assert "hydra.sweep.dir" in line


def test_unwritable_directory(tmp_path):
    """An unwritable directory is refused with one message."""
    (tmp_path / "file").write_text("")
    message = r"file/sweep/\.lock: cannot be created .*writable directory"
    with pytest.raises(InputError, match=message), locked(tmp_path / "file/sweep", "sweep"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_or_read_only(tmp_path):
    """A full or read-only file system is refused with one message."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        (tmp_path / "run").mkdir()
        with locked(tmp_path / "run", "run"):
            pass
        (tmp_path / "other").mkdir()
        (tmp_path / "filler").write_bytes(b"x" * os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_bsize)
        message = r"other/\.lock: .*No space left on device"
        with pytest.raises(InputError, match=message), locked(tmp_path / "other", "run"):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(InputError, match=r"new.*: cannot be created .Read-only"), locked(tmp_path / "new", "sweep"):
            pass
        assert not is_locked(tmp_path / "run")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
