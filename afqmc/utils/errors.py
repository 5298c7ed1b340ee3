"""What a person did that cannot be done: one message, no traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LISTED = 16
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LONGEST = 300  # letters of what a message quotes


class InputError(ValueError):
    """Refused input. The message names the key or the file and line, what was found and what is legal."""


class SweepFailed(Exception):  # noqa: N818 - a result, and no mistake of whoever catches it
    """A sweep is over, and not all of its jobs are completed or pruned. The message says which."""


class TrialPruned(Exception):  # noqa: N818 - no mistake either
    """A search has no use for the rest of this run."""


class UnswallowedInputError(BaseException):
    """An InputError on its way through code that swallows exceptions."""


def suggest(name: str, options: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'bucketed'?``, nothing when no option is near."""
    lower = {option.lower(): option for option in sorted(options, reverse=True)}
    wanted = name.lower()
    near = [option for option in sorted(lower) if wanted and option.startswith(wanted)][:1]
    near = near or [option for option in sorted(lower) if wanted and option.rpartition("/")[2] == wanted][:1]
    near = near or difflib.get_close_matches(wanted, lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The nearest option as a hint, or the legal ones when none is near."""
    names = sorted(set(options))
    if near := suggest(name, names):
        return near
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return f"; legal: {listed}" if names else ""


def elide(text: str) -> str:
    """A text that quotes what somebody's file holds, without its middle where that is long."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def visible(text: str) -> str:
    """Escape what would steer a terminal: control characters but newline and tab, and overrides of text direction."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def printable(text: str) -> str:
    """Escape every character that is not printable, line breaks too: for a name or a cell from an untrusted file."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def as_input_error(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of something that comes from anybody, and is told in one message.

    Raises:
        InputError: in place of any other Exception.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged or hostile file makes libraries raise anything
        raise InputError(f"{what} ({type(error).__name__}: {first_line(error)})") from error
