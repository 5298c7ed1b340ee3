"""Threads by CPU affinity and quota; settings of the user take precedence."""

import math
import subprocess
import sys

import pytest
from helpers import PATIENCE_S

from afqmc.utils.process import cpu_quota, usable_cores


def groups(tmp_path, own, files):
    """Write a tree of control groups, and the file that lists those of the process."""
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    return tmp_path / "cgroup", tmp_path / "own"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"cpu.max": "400000 100000\n", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000"}, 1.5),
        ("2:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("2:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "9"}, math.inf),
        ("5:memory:/a\n", {"memory/a/cpu.max": "1 100000\n"}, math.inf),
        ("0::/gone\n", {"cpu.max": "broken"}, math.inf),
    ],
)
def test_cpu_quota(own, files, quota, tmp_path):
    """The quota is the lowest of all control groups above the process."""
    assert cpu_quota(*groups(tmp_path, own, files)) == quota


def test_no_control_groups(tmp_path):
    """Without control groups there is no quota."""
    assert cpu_quota(tmp_path, tmp_path / "none") == math.inf


def printed(code, **environment):
    command = [
        sys.executable,
        "-c",
        f"import os\nfrom afqmc.utils.process import configure_threads, limit_kernel_caches, usable_cores\n{code}",
    ]
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(path for path in sys.path if path), **environment}
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout.split()


def test_threads_per_job():
    """torch uses the cores divided by the number of parallel jobs, and NumPy one core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT")
    shown = f"print(*map(os.environ.get, {names}))"
    code = f"configure_threads()\nimport torch\n{shown}\nprint(torch.get_num_threads())"
    assert printed(code) == [str(usable_cores()), "1", "2000", str(usable_cores())]
    assert printed(f"configure_threads(jobs_at_once=1000)\n{shown}") == ["1", "1", "2000"]


def test_kernel_caches_are_limited():
    """The variables are those that torch and oneDNN read; a user's own value is kept."""
    shown = (
        "limit_kernel_caches()\nprint(os.environ['LRU_CACHE_CAPACITY'], os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    )
    assert printed(shown) == ["128", "128"]
    assert printed(shown, LRU_CACHE_CAPACITY="7") == ["7", "128"]


def test_collector_is_paused_while_libraries_are_imported():
    """Imported objects are frozen, and the garbage collector runs again afterwards."""
    code = (
        "import gc\nfrom afqmc.utils.process import importing_libraries\n"
        "with importing_libraries():\n    import numpy\n    print(gc.isenabled())\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
    )
    assert printed(code) == ["False", "True", "True"]


def test_collector_of_a_process_with_torch_is_unchanged():
    """Objects of a notebook that uses torch already are not frozen."""
    code = (
        "import gc, sys\nsys.modules['torch'] = gc\nfrom afqmc.utils.process import importing_libraries\n"
        "before = gc.get_freeze_count()\n"  # Python 3.12 starts with frozen objects
        "with importing_libraries():\n    print(gc.isenabled())\nprint(gc.get_freeze_count() - before)"
    )
    assert printed(code) == ["True", "0"]


def test_user_settings():
    """Environment variables of the user are unchanged."""
    shown = "print(os.environ['OMP_NUM_THREADS'], os.environ.get('GOMP_SPINCOUNT'))"
    code = f"configure_threads()\n{shown}"
    assert printed(code, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="active") == ["1", "None"]
    assert printed(code, GOMP_SPINCOUNT="7")[1] == "7"
