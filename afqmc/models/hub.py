"""The Hugging Face hub, a directory, or neither: where a pretrained model comes from, and what to say when it fails."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, HfHubHTTPError

from afqmc.models.config import ModelConfig
from afqmc.models.files import check_lfs, damaged_file
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.files import expand_user
from afqmc.utils.proxies import through_proxy
from afqmc.utils.redaction import redacted

log = logging.getLogger(__name__)

_HUB_TIMEOUT_S = 5
# what the loaders raise for a file that is missing, damaged or of another kind: anything, AttributeError included
UNUSABLE = Exception
# what the hub's client raises: of httpx or httpx2, as its version has it
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_HINTS = {
    401: ": there is no such model, or it is private or gated (HF_TOKEN=..., or hf auth login)",
    403: ": it is private or gated (HF_TOKEN=..., or hf auth login)",
    404: ": there is no such model, or no such model.revision of it",
}


def hub_options(config: ModelConfig) -> dict[str, Any]:
    """What every ``from_pretrained`` is given: no code from elsewhere, and the cache alone where the hub is away."""
    name = config.name_or_path
    local = name is None or os.path.isdir(expand_user(name)) or not hub_is_reachable()
    return {"revision": config.revision or "main", "trust_remote_code": False, "local_files_only": local}


@cache
def hub_failure() -> str | None:
    """Say in one line why the hub gives no answer; None where it answers.

    It is asked once, with a short time limit: its client would try for a minute.
    """
    try:
        session = get_session()
        session.event_hooks["request"].append(_limit)
        session.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        return redacted(f"{type(error).__name__}: {first_line(error)}") + through_proxy(constants.ENDPOINT)
    return None


def hub_is_reachable() -> bool:
    """Whether the hub answers at all."""
    return hub_failure() is None


def _limit(request: Any) -> None:
    """Let no request wait without end; the client's first question about a model would, unlike those that follow."""
    limits = request.extensions["timeout"]
    limits.update({what: constants.HF_HUB_ETAG_TIMEOUT for what, seconds in limits.items() if seconds is None})


def resolve_model_path(name: str) -> str:
    """A hub id as it is; what is a directory, or looks like one, as a path.

    Raises:
        InputError: when it looks like one and is not there.
    """
    path = expand_user(name)
    if os.path.isdir(path):
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"model.name_or_path={name}: no such directory")
    return name


def loading_error(what: str, config: ModelConfig, error: Exception) -> InputError:
    """The same advice for everything that fails on the way to a pretrained model."""
    name = config.name_or_path
    assert name is not None
    check_lfs(config, what)
    failed = _failed_request(error)
    reason = _answer(failed) if failed else damaged_file(config, what) or _in_short(error)
    if os.path.isdir(expand_user(name)):
        return InputError(f"model.name_or_path={name}: no usable {what} in this directory: {reason}")
    hub = redacted(constants.ENDPOINT)
    tried = f"{hub} and the cache" if hub_is_reachable() else f"{hub} (no answer: {hub_failure()}), the cache"
    copy = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    damaged = f"  a damaged copy:      rm -r {copy}, and it is fetched again\n" if not failed and copy.is_dir() else ""
    return InputError(
        f"model.name_or_path={name}: cannot get its {what}; tried {tried}: {redacted(reason)}\n{damaged}"
        "  a mirror:            HF_ENDPOINT=https://hf-mirror.com python -m afqmc.run ...\n"
        "  a local directory:   model.name_or_path=DIR (config.json, tokenizer.json, model.safetensors)\n"
        "  no network at all:   python -m afqmc.run experiment=quickstart"
    )


def _failed_request(error: BaseException) -> BaseException | None:
    """The request that failed beneath what the libraries made of it; a file that a model lacks is no failure."""
    beneath: BaseException | None = error
    while beneath is not None:
        if isinstance(beneath, (_HTTP_ERROR, FileMetadataError)) and not isinstance(beneath, EntryNotFoundError):
            return beneath
        beneath = beneath.__cause__ or beneath.__context__
    return None


def _answer(failed: BaseException) -> str:
    if not isinstance(failed, HfHubHTTPError):
        return first_line(failed)
    status = failed.response.status_code
    return f"the answer was {status} {failed.response.reason_phrase}{_HINTS.get(status, '')}"


def _in_short(error: BaseException) -> str:
    told = first_line(error)
    return told if type(error) in (OSError, ValueError) else f"{type(error).__name__}: {told}"
