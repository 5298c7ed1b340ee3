"""The Hugging Face hub, a directory, or neither: where a pretrained model comes from, and what to say when it fails."""

from __future__ import annotations

import logging
import os
from functools import cache
from pickle import UnpicklingError
from typing import Any

from huggingface_hub import constants, get_session
from safetensors import SafetensorError

from afqmc.errors import InputError, first_line
from afqmc.model.config import ModelConfig
from afqmc.paths import expanded

log = logging.getLogger(__name__)

_HUB_TIMEOUT_S = 5
# what a damaged or missing file raises
UNUSABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UnpicklingError)


def hub_options(config: ModelConfig) -> dict[str, Any]:
    """What every ``from_pretrained`` is given: no code from elsewhere, and the cache alone where the hub is away."""
    name = config.name_or_path
    local = name is None or os.path.isdir(expanded(name)) or not hub_is_reachable()
    return {"revision": config.revision or "main", "trust_remote_code": False, "local_files_only": local}


@cache
def hub_is_reachable() -> bool:
    """Whether the hub answers at all, asked once: its client would try for a minute."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        log.debug("%s: %s", constants.ENDPOINT, error)
        return False
    return True


def resolved(name: str) -> str:
    """A hub id as it is; what is a directory, or looks like one, as a path.

    Raises:
        InputError: when it looks like one and is not there.
    """
    path = expanded(name)
    if os.path.isdir(path):
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"model.name_or_path={name}: no such directory")
    return name


def cannot_load(what: str, config: ModelConfig, error: Exception) -> InputError:
    """The same advice for everything that fails on the way to a pretrained model."""
    name = config.name_or_path
    assert name is not None
    reason = first_line(error)
    if os.path.isdir(expanded(name)):
        return InputError(f"model.name_or_path={name}: no usable {what} in this directory: {reason}")
    tried = (
        f"{constants.ENDPOINT} and the cache" if hub_is_reachable() else f"{constants.ENDPOINT} (no answer), the cache"
    )
    return InputError(
        f"model.name_or_path={name}: cannot get its {what}; tried {tried}: {reason}\n"
        "  a mirror:            HF_ENDPOINT=https://hf-mirror.com python -m afqmc.run ...\n"
        "  a local directory:   model.name_or_path=DIR (config.json, tokenizer.json, model.safetensors)\n"
        "  no network at all:   python -m afqmc.run experiment=quickstart"
    )
