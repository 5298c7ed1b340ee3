"""Where and by what a run was made: command, versions, machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib import metadata
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
_ARITHMETIC = {  # what bits depend on
    "hardware": ("device", "gpu", "cpu", "threads", "processes", "mixed_precision"),
    "packages": ("torch", "transformers", "accelerate", "numpy"),
}


def collect_environment(hardware: dict[str, Any]) -> dict[str, Any]:
    """For environment.json; no environment variable and no secret is in it."""
    return {
        "command": shlex.join([Path(sys.executable).name, *map(redacted_argument, sys.orig_argv[1:])]),
        "directory": redacted(os.getcwd()),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "hardware": hardware,
    }


def changed_fields(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What of ``_ARITHMETIC`` is not the same."""
    for group, keys in _ARITHMETIC.items():
        for key in keys:
            one, other = before.get(group, {}).get(key), now[group].get(key)
            if one != other:
                yield f"{key} {one} -> {other}"


def git_state() -> dict[str, str] | None:
    """Commit and a hash of the uncommitted changes of the checkout this package runs from, None outside one."""
    here = Path(__file__).parents[1]

    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> bytes:  # without what would make git run other programs
        command = ["git", "-C", str(here), "-c", "core.fsmonitor=false", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=10, env=environment).stdout

    try:
        if not git("ls-files", "--", str(here / "environment.py")).strip():
            return None
        changes = git("diff", "--no-ext-diff", "--no-textconv", "HEAD")
        return {
            "commit": git("rev-parse", "HEAD").decode().strip(),
            "diff_sha256": sha256(changes).hexdigest() if changes else "",
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
