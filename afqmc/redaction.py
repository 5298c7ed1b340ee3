"""Secrets are kept out of what a run writes and says: tokens, keys and passwords become ``***``.

What is a secret is told by its name, of an override or an environment variable, and by its place in an address.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from afqmc.errors import visible

HIDDEN = "***"
_SHORTEST = 8  # characters of a value that is looked for in any text; a shorter one may be an ordinary word
_ANYWHERE = ("auth", "authorization", "credential", "credentials", "secret", "secrets", "signature")
_ENDINGS = ("apikey", "passphrase", "password", "passwords", "passwd", "secret", "token")  # also of joined words
_LAST = ("key", "keys", "pat", "pwd", "sig")  # of several: pad_token_id and key_size are none
_DIRECTORIES = ("PWD", "OLDPWD")  # the shell's own, and no passwords
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_USER = re.compile(
    r"(?<=://)[^\s\"'<>]+(?=@)"
)  # of https://user:password@host: up to the last @, as a password may hold / ? #
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|x-api-key|cookie)([\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+")
_SCHEME = re.compile(r"\b(Bearer|Basic)( +)[^\s\"',]{4,}")  # of a header without its name
_VALUE = r"\"[^\"]*\"|'[^']*'"
_QUERY = re.compile(r"(?<=[?&;])([\w.-]+)(=)([^\s&;#\"']+)")  # of https://host/path?name=value
_PAIR = re.compile(rf"(?<![\w.-])([\w.-]+)(=)({_VALUE}|[^\s,&#\"']+)")  # an override, or a line of source
_MEMBER = re.compile(rf"(?<![\w.-])([\w.-]+)(\s*:\s*)({_VALUE}|[^\s,{{}}\[\]]+)")  # in {key: value}


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret: ``WANDB_API_KEY``, ``model.args.password``, ``hfToken``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(words) and (
        any(word in _ANYWHERE for word in words) or words[-1].endswith(_ENDINGS) or words[-1] in _LAST
    )


def redacted(text: str) -> str:
    """A text without secrets: those that this process was given, and those of addresses and ``key=value`` in it."""
    for value in _given():
        text = text.replace(value, HIDDEN)
    text = _SCHEME.sub(rf"\1\2{HIDDEN}", _HEADER.sub(rf"\1\2{HIDDEN}", text))
    text = _QUERY.sub(_hide, _USER.sub(HIDDEN, text))
    return _PAIR.sub(_hide, text)


def redacted_argument(argument: str) -> str:
    """One word of a command line; of an override, the value goes by its key, however short it is."""
    key, equals, value = argument.partition("=")
    if equals and is_secret(key):
        return f"{key}={HIDDEN}"
    return redacted(f"{key}={_MEMBER.sub(_hide, value)}" if "{" in value else argument)


def redacted_tree(node: Any, key: str = "") -> Any:
    """Plain containers without secrets: by key, and in every text."""
    if is_secret(key) and node is not None and not isinstance(node, bool):
        return HIDDEN
    if isinstance(node, dict):
        return {name: redacted_tree(value, str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(redacted_tree(value) for value in node)
    return redacted(node) if isinstance(node, str) else node


class RedactingFormatter(logging.Formatter):
    """Lines of a log, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        return visible(redacted(super().format(record)))


def _hide(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{HIDDEN}" if is_secret(found[1]) else found[0]


def _given() -> list[str]:
    """The secrets of the environment and of the command line, longest first: one may be part of another."""
    values = {value.strip() for name, value in os.environ.items() if is_secret(name) and name not in _DIRECTORIES}
    for argument in sys.orig_argv:  # as typed: sys.argv is quoted for Hydra
        values.update(_of_override(argument))
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)


def _of_override(argument: str) -> Iterator[str]:
    key, equals, value = argument.partition("=")
    if equals and is_secret(key):
        yield from (value.strip("'\""), *value.split(","))  # -m runs each of a,b
    elif "{" in value:
        yield from (found[3].strip("'\"") for found in _MEMBER.finditer(value) if is_secret(found[1]))
