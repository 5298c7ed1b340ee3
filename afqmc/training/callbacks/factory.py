"""Builds the callbacks that a config names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afqmc.training.callbacks.base import Callback
from afqmc.utils.errors import InputError
from afqmc.utils.targets import instantiate

_EXAMPLE = "my_module.MyCallback"


def build_callbacks(config: Mapping[str, Any]) -> dict[str, Callback]:
    """Build the ``callbacks`` group: a name and a ``_target_`` with arguments each.

    Raises:
        InputError: naming the callback, or the argument that it does not have or rejects.
    """
    callbacks = {}
    for name, entry in config.items():
        key = f"callbacks.{name}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{key}={entry}: must be a mapping with _target_, such as {{_target_: {_EXAMPLE}}}")
        callback = instantiate(entry, key, _EXAMPLE)
        if not isinstance(callback, Callback):
            raise InputError(
                f"{key}._target_={entry['_target_']}: must be a subclass of {Callback.__module__}.Callback"
            )
        callbacks[name] = callback
    return callbacks
