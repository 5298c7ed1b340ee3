"""Makes the module of a command callable, so that ``afqmc.run`` is both a command and a function of the Python API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Make the imported module ``name`` call ``function``, with its signature.

    Without this, ``import afqmc.run`` would hide a function of the same name in the package.
    """

    class CallableModule(ModuleType):
        __call__ = staticmethod(function)
        __wrapped__ = staticmethod(function)  # for inspect.signature

    sys.modules[name].__class__ = CallableModule
