"""Builds the callbacks that a config names."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from afqmc.training.callbacks.base import Callback
from afqmc.utils.errors import InputError, did_you_mean
from afqmc.utils.targets import instantiate_all

log = logging.getLogger(__name__)

_EXAMPLE = "my_module.MyCallback"
_HOOKS = {name: hook for name, hook in vars(Callback).items() if inspect.isfunction(hook)}


def build_callbacks(config: Mapping[str, Any]) -> dict[str, Callback]:
    """Build the ``callbacks`` group: a name and a ``_target_`` with arguments each.

    Raises:
        InputError: naming the callback, and the argument or the hook that is not valid.
    """
    callbacks = instantiate_all(config, "callbacks", _EXAMPLE, Callback)
    for name, callback in callbacks.items():
        _check_hooks(type(callback), f"callbacks.{name}")
    return callbacks


def without_switched_off(callbacks: Mapping[str, Callback]) -> dict[str, Callback]:
    """Return the callbacks that are on, and log those that their arguments switch off."""
    for name, callback in callbacks.items():
        if callback.is_off:
            log.warning("callbacks.%s: its arguments switch it off, so this run is without it", name)
    return {name: callback for name, callback in callbacks.items() if not callback.is_off}


def _check_hooks(callback: type[Callback], key: str) -> None:
    """Check that each method ``on_...`` is a hook, and that each hook takes the arguments it is called with.

    Raises:
        InputError: naming the method.
    """
    for name, method in inspect.getmembers(callback, inspect.isfunction):
        if name.startswith("on_") and name not in _HOOKS:
            raise InputError(f"{key}: {callback.__name__}.{name} is not a hook{did_you_mean(name, _HOOKS)}")
        if name in _HOOKS:
            expected = inspect.signature(_HOOKS[name])
            try:
                inspect.signature(method).bind(*expected.parameters)
            except TypeError as error:
                raise InputError(f"{key}: {callback.__name__}.{name} must take {expected}: {error}") from error
