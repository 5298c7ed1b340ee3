"""Exceptions that are reported as a single message, without a traceback, and helpers to word the messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_MAX_LISTED = 16  # options in one message
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MAX_QUOTED = 300  # characters of a quoted value


class InputError(ValueError):
    """Invalid user input. The message names the key or the file and line, the value, and what is allowed."""


class SweepFailed(Exception):  # noqa: N818 - an outcome, not an error in the program
    """A sweep ended with jobs that are neither completed nor pruned. The message lists them."""


class TrialPruned(Exception):  # noqa: N818 - an outcome as well
    """The search stopped this run early, because it is unlikely to be among the best."""


class UnswallowedInputError(BaseException):
    """Carries an InputError through library code that catches ``Exception``."""


def suggest(name: str, options: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'token_budget'?``, or an empty text when no option is similar."""
    lower = {option.lower(): option for option in sorted(options, reverse=True)}
    typed = name.lower()
    similar = [option for option in sorted(lower) if typed and option.startswith(typed)]
    similar = similar or [option for option in sorted(lower) if typed and option.rpartition("/")[2] == typed]
    similar = similar or difflib.get_close_matches(typed, lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[similar[0]]!r}?" if similar else ""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return the most similar option as a hint, or the list of allowed ones when none is similar."""
    names = sorted(set(options))
    if hint := suggest(name, names):
        return hint
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"; allowed: {', '.join(names[:_MAX_LISTED])}{more}" if names else ""


def elide(text: str) -> str:
    """Cut the middle out of a long value from a user's file, to quote it in a message."""
    half = _MAX_QUOTED // 2
    return text if len(text) <= _MAX_QUOTED else f"{text[:half]} ... {text[-half:]}"


def visible(text: str) -> str:
    """Escape what could control a terminal: control characters but newline and tab, and text direction overrides."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def printable(text: str) -> str:
    """Escape every unprintable character and every line break of a name or cell from an untrusted file."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def as_input_error(what: str) -> Iterator[None]:
    """Report any exception raised inside as an InputError: the code inside reads untrusted input.

    Args:
        what: The beginning of the message: the file or key, and what is wrong.

    Raises:
        InputError: instead of any other Exception.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # libraries raise any class on a damaged or malicious file
        raise InputError(f"{what} ({type(error).__name__}: {first_line(error)})") from error
