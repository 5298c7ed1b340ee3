"""Resolve pretrained models on the Hugging Face hub or in a directory, and explain why loading one failed."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, HfHubHTTPError

from afqmc.models.config import ModelConfig
from afqmc.models.files import check_lfs, damaged_file, local_directory
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.files import expand_user
from afqmc.utils.proxies import through_proxy
from afqmc.utils.redaction import redacted

log = logging.getLogger(__name__)

_HUB_TIMEOUT_S = 5
# the base class of the HTTP library's errors; which library that is depends on the version of huggingface_hub
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_HINTS = {
    401: ": the model does not exist, or is private or gated (HF_TOKEN=..., or hf auth login)",
    403: ": the model is private or gated (HF_TOKEN=..., or hf auth login)",
    404: ": the model does not exist, or has no such model.revision",
}


def hub_options(config: ModelConfig) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained``: no remote code, and only the cache if the hub is unreachable."""
    name = config.name_or_path
    local = name is None or os.path.isdir(expand_user(name)) or not hub_is_reachable()
    return {"revision": config.revision or "main", "trust_remote_code": False, "local_files_only": local}


@cache
def hub_failure() -> str | None:
    """Return why the hub is unreachable, in one line; None if it answers.

    It is tried once per process with a short timeout, because its client would retry for a minute.
    """
    try:
        session = get_session()
        session.event_hooks["request"].append(_set_timeout)
        session.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # the HTTP library may raise anything
        return redacted(f"{type(error).__name__}: {first_line(error)}") + through_proxy(constants.ENDPOINT)
    return None


def hub_is_reachable() -> bool:
    """Return whether the hub answers, with whatever status."""
    return hub_failure() is None


def _set_timeout(request: Any) -> None:
    """Add timeouts to a request that has none. The client's first request for a model would wait for ever."""
    timeouts = request.extensions["timeout"]
    timeouts.update({kind: constants.HF_HUB_ETAG_TIMEOUT for kind, seconds in timeouts.items() if seconds is None})


def resolve_model_path(name: str) -> str:
    """Return a hub id unchanged, or the path of a directory with ``~`` expanded; see ``local_directory``.

    Raises:
        InputError: if the name looks like a path and the directory does not exist, or is not a model.
    """
    if path := local_directory(name):
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"model.name_or_path={name}: no such directory")
    return name


def loading_error(what: str, config: ModelConfig, error: Exception) -> InputError:
    """Explain why the config, tokenizer or weights of a pretrained model could not be loaded, and list alternatives.

    ``error`` may be of any type: damaged files make ``from_pretrained`` raise even AttributeError.
    """
    name = config.name_or_path
    assert name is not None
    check_lfs(config, what)
    request_error = _failed_request(error)
    reason = _describe_response(request_error) if request_error else damaged_file(config, what) or _summarize(error)
    if os.path.isdir(expand_user(name)):
        return InputError(f"model.name_or_path={name}: no usable {what} in this directory: {reason}")
    hub = redacted(constants.ENDPOINT)
    tried = f"{hub} and the cache" if hub_is_reachable() else f"{hub} (no answer: {hub_failure()}), the cache"
    cached = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    is_damaged = request_error is None and cached.is_dir()
    damaged = f"  a damaged copy:      rm -r {cached} (the next run downloads it again)\n" if is_damaged else ""
    return InputError(
        f"model.name_or_path={name}: cannot get its {what}; tried {tried}: {redacted(reason)}\n{damaged}"
        "  a mirror:            HF_ENDPOINT=https://hf-mirror.com python -m afqmc.run ...\n"
        "  a local directory:   model.name_or_path=DIR (config.json, tokenizer.json, model.safetensors)\n"
        "  no network:          model=mini (a small model with random weights, to try your data)"
    )


def _failed_request(error: BaseException) -> BaseException | None:
    """Return the failed request in the chain of causes, if any. A missing optional file is not a failure."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (_HTTP_ERROR, FileMetadataError)) and not isinstance(cause, EntryNotFoundError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _describe_response(error: BaseException) -> str:
    if not isinstance(error, HfHubHTTPError):
        return first_line(error)
    status = error.response.status_code
    return f"the answer was {status} {error.response.reason_phrase}{_HINTS.get(status, '')}"


def _summarize(error: BaseException) -> str:
    message = first_line(error)
    return message if type(error) in (OSError, ValueError) else f"{type(error).__name__}: {message}"
