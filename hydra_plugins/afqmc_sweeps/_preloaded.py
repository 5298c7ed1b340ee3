"""Imports what every job needs. The server process that is forked for each job imports this module once."""

from __future__ import annotations

from importlib import import_module

from afqmc.utils.process import importing_libraries

_MODULES = (  # torch, transformers and accelerate are among what they import
    "afqmc.runner.experiment",
    "sklearn.metrics",
    "statsmodels.stats.proportion",
    "transformers.models.bert.modeling_bert",
    "transformers.optimization",  # schedules; imports peft if it is installed
)

with importing_libraries():
    for name in _MODULES:
        import_module(name)
