"""A W&B session: online, or offline where it cannot be online; never a question, never a line of W&B's own."""

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

_PROBE_S = 5
_INIT_S = 30


def preload() -> None:
    """Import what a W&B run will use, in the thread that trains.

    Importing wandb (pydantic) and beginning to train (torch) both parse source, and Python 3.11 fails at that in one of
    two threads that do it at once: ``SystemError: AST constructor recursion depth mismatch``.
    """
    import wandb.apis.public  # noqa: F401


def probe(url: str) -> None:
    """Hear whether anybody answers there: W&B itself would try for minutes.

    Raises:
        ConnectionError: when nobody does, or a gateway in its stead.
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=_PROBE_S).close()  # noqa: S310 - the person's own server
    except HTTPError as error:
        if error.code >= 500:
            raise ConnectionError(f"{url} answers {error.code}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # a certificate that W&B may know is an answer too
            raise ConnectionError(f"{url} does not answer ({reason})") from error


def server_url() -> str:
    """The address of the configured W&B server; makes the whole library silent.

    What only a run is told leaves the login and artifacts free to write and ask.
    """
    import wandb

    logging.raiseExceptions = False  # W&B's own log: where its disk is full, each line would print a traceback
    return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)


def init_run(config: TrackerConfig, settings: dict[str, Any], directory: Path, run: str) -> tuple[Any, bool]:
    """Begin a W&B run, or go on with it.

    Args:
        config: Names as in ``wandb.init``; ``name`` must be set.
        settings: The run's config, as plain containers.
        directory: Where W&B makes its ``wandb`` directory.
        run: The run's id.

    Returns:
        The run, and whether it is online.
    """
    url = server_url()
    if resolve_mode(config).mode == "online":
        try:
            if logged_in():  # without one W&B refuses at once
                probe(url)
            return _init(config, settings, directory, run, "online"), True
        except Exception as error:  # W&B has many
            log.warning("W&B: cannot go online: %s", first_line(error))
            _release()
    return _init(config, settings, directory, run, "offline"), False


def _release() -> None:
    """W&B's service keeps the id of a run that it could not begin, and would refuse it to the same run offline."""
    import wandb

    wandb.teardown()
    server_url()


def _init(
    config: TrackerConfig, settings: dict[str, Any], directory: Path, run: str, mode: Literal["online", "offline"]
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
            id=run,
            resume="allow",
            notes=config.notes,
            config=settings,
            dir=str(directory),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_S),
        )


@contextmanager
def _no_secrets_in_argv() -> Iterator[None]:
    """W&B records the command line, as it finds it in ``sys.argv``; nobody else here looks there any more."""
    found = sys.argv
    sys.argv = [*found[:1], *map(redacted_argument, found[1:])]
    try:
        yield
    finally:
        sys.argv = found


class NotSentError(RuntimeError):
    """W&B did not get what it was to get; the message says why, in a line."""


def can_send() -> bool:
    """Whether the server can be sent something; False where W&B's own settings ask for files alone.

    Raises:
        NotSentError: when W&B is disabled, nobody is logged in, or no server answers.
    """
    refuse_disabled()
    found = resolve_mode(TrackerConfig())
    if found.mode == "offline" and not found.by_default:
        return False
    url = server_url()
    if not logged_in():
        raise NotSentError(f"nobody is logged in to {url}: wandb login, or WANDB_API_KEY in the environment")
    try:
        probe(url)
    except ConnectionError as error:
        raise NotSentError(str(error)) from error
    return True


def refuse_disabled() -> None:
    """Stop where W&B's own settings say that there is to be no W&B.

    Raises:
        NotSentError: naming the variable or file.
    """
    found = resolve_mode(TrackerConfig())
    if found.mode == "disabled":
        raise NotSentError(f"{found.reason}: nothing is sent")
