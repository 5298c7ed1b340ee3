"""Record the environment of a run: command, git commit, package versions and hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from afqmc.utils.redaction import redacted, redacted_argument

_PACKAGES = (
    "afqmc",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "hydra-core",
    "scikit-learn",
    "numpy",
    "wandb",
)
_NUMERICAL = {  # a difference in any of these can change results in the last bits
    "hardware": ("device", "gpu", "cpu", "threads", "processes", "mixed_precision"),
    "packages": ("torch", "transformers", "accelerate", "numpy"),
}


def collect_environment(hardware: dict[str, Any]) -> dict[str, Any]:
    """Return the content of environment.json; it contains no environment variables and no secrets."""
    return {
        "command": shlex.join([Path(sys.executable).name, *map(redacted_argument, sys.orig_argv[1:])]),
        "directory": redacted(os.getcwd()),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
        "hardware": hardware,
    }


def changed_fields(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield ``key before -> now`` for each changed field on which results depend bit for bit."""
    for group, keys in _NUMERICAL.items():
        for key in keys:
            old, new = before.get(group, {}).get(key), now[group].get(key)
            if old != new:
                yield f"{key} {old} -> {new}"


def git_state() -> dict[str, str] | None:
    """Return the commit of this package's checkout and a hash of the uncommitted changes; None outside a checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> bytes:  # with the settings off that let a repository run other programs
        command = ["git", "-C", str(Path(__file__).parent), "-c", "core.fsmonitor=false", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=10, env=environment).stdout

    try:
        if not git("ls-files", "--", __file__).strip():
            return None
        changes = git("diff", "--no-ext-diff", "--no-textconv", "HEAD")
        return {
            "commit": git("rev-parse", "HEAD").decode().strip(),
            "diff_sha256": sha256(changes).hexdigest() if changes else "",
        }
    except (OSError, subprocess.SubprocessError):
        return None


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    from importlib.metadata import PackageNotFoundError, version  # a fifth of the time of --help

    try:
        return version(name)
    except PackageNotFoundError:
        return None
