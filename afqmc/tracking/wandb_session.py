"""Start W&B runs: online, or offline if the server is unreachable; without prompts and output of the library."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from afqmc.tracking.config import TrackerConfig
from afqmc.tracking.wandb_mode import logged_in, resolve_mode
from afqmc.utils.errors import first_line
from afqmc.utils.redaction import redacted_argument

log = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 5
_INIT_TIMEOUT_S = 30


def preload() -> None:
    """Import wandb in the main thread, before a run starts.

    Importing wandb (pydantic) and starting to train (torch) both parse source code. When two threads do so at the same
    time, Python 3.11 can fail with ``SystemError: AST constructor recursion depth mismatch``.
    """
    import wandb.apis.public  # noqa: F401


def probe(url: str) -> None:
    """Check that the server is reachable; wandb's own retries take minutes.

    Raises:
        ConnectionError: when there is no answer, or only the error (5xx) of a gateway.
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=_PROBE_TIMEOUT_S).close()  # noqa: S310 - the user's own server
    except HTTPError as error:
        if error.code >= 500:
            raise ConnectionError(f"{url} answers {error.code}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # a TLS error is an answer too; W&B may know the certificate
            raise ConnectionError(f"{url} does not answer ({reason})") from error


def server_url() -> str:
    """Return the URL of the configured W&B server, and silence the whole library.

    Settings of a single run would not silence login and artifacts.
    """
    import wandb

    logging.raiseExceptions = False  # with a full disk, each line of W&B's own log would print a traceback
    return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)


def init_run(config: TrackerConfig, settings: dict[str, Any], directory: Path, run_id: str) -> tuple[Any, bool]:
    """Start or resume a W&B run.

    Args:
        config: The ``tracker`` group; ``name`` must be set.
        settings: The config of the run, as plain containers.
        directory: Where W&B creates its ``wandb`` directory.
        run_id: The id of the run.

    Returns:
        The ``wandb`` run, and whether it is online.
    """
    url = server_url()
    if resolve_mode(config).mode == "online":
        try:
            if logged_in():  # without a key W&B itself fails at once
                probe(url)
            return _init(config, settings, directory, run_id, "online"), True
        except Exception as error:  # W&B raises many classes
            log.warning("W&B: cannot go online: %s", first_line(error))
            _release()
    return _init(config, settings, directory, run_id, "offline"), False


def _release() -> None:
    """Restart W&B's service. It keeps the id of a run that failed to start, and would refuse the same id offline."""
    import wandb

    wandb.teardown()
    server_url()


def _init(
    config: TrackerConfig, settings: dict[str, Any], directory: Path, run_id: str, mode: Literal["online", "offline"]
) -> Any:
    import wandb

    with _no_secrets_in_argv():
        return wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            job_type=config.job_type,
            tags=config.tags or None,
            name=config.name,
            id=run_id,
            resume="allow",
            notes=config.notes,
            config=settings,
            dir=str(directory),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_TIMEOUT_S),
        )


@contextmanager
def _no_secrets_in_argv() -> Iterator[None]:
    """Redact ``sys.argv``, which W&B records; it has been parsed before."""
    original = sys.argv
    sys.argv = [*original[:1], *map(redacted_argument, original[1:])]
    try:
        yield
    finally:
        sys.argv = original


class NotSentError(RuntimeError):
    """Something could not be sent to W&B. The message gives the reason in one line."""


def can_send() -> bool:
    """Return whether data can be sent to the server; False if W&B's own settings say offline.

    Raises:
        NotSentError: when W&B is disabled, there is no API key, or the server does not answer.
    """
    refuse_disabled()
    resolved = resolve_mode(TrackerConfig())
    if resolved.mode == "offline" and not resolved.by_default:
        return False
    url = server_url()
    if not logged_in():
        raise NotSentError(f"not logged in to {url}; log in by `wandb login` or WANDB_API_KEY")
    try:
        probe(url)
    except ConnectionError as error:
        raise NotSentError(str(error)) from error
    return True


def refuse_disabled() -> None:
    """Check that W&B's own settings do not disable it.

    Raises:
        NotSentError: naming the variable or file that does.
    """
    resolved = resolve_mode(TrackerConfig())
    if resolved.mode == "disabled":
        raise NotSentError(f"{resolved.reason}: nothing is sent")
