"""Fine-tune encoders on sentence pairs: one Hydra-composed run, one directory that tells all about it.

run_dir = afqmc.run(["experiment=quickstart", "lr=1e-4"])
afqmc.load(run_dir.path).predict([("first sentence", "second sentence")])
afqmc.compare(["outputs/sweeps/NAME"]).to_pandas()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afqmc.compare import compare_paths as compare
    from afqmc.inference.predictor import Predictor
    from afqmc.run import run_overrides as run

    load = Predictor.load

__version__ = "0.1.0"
__all__ = ["compare", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import the parts of the Python API on first use, since importing torch takes seconds."""
    if name in ("run", "compare"):
        return import_module(f"afqmc.{name}")  # a callable module
    if name == "load":
        return import_module("afqmc.inference.predictor").Predictor.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
