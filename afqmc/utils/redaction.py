"""Keep secrets out of what a run writes and prints: tokens, keys and passwords become ``***``.

A secret is recognised by the name of its key (of an override, a variable, a header), and by its position in an address.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from afqmc.utils.errors import visible

HIDDEN = "***"
_SHORTEST = 8  # characters of a value that is looked for in any text; a shorter one may be an ordinary word
_ANYWHERE = (
    "auth", "authorization", "cookie", "cookies", "credential", "credentials", "secret", "secrets", "signature",
)  # fmt: skip
_ENDINGS = ("apikey", "passphrase", "password", "passwords", "passwd", "secret", "token")  # also of joined words
_LAST = ("key", "keys", "pat", "pwd", "sig")  # of several: pad_token_id and key_size are none
_LONGEST = 4096  # characters of an address that are searched for its password
_DIRECTORIES = ("PWD", "OLDPWD")  # the shell's own, and no passwords
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_CLOSED = r"(?=[\s,)\]}:;]|\Z)"  # what follows a quote that closes a text
_INSIDE = {  # a doubled quote is one of the text, in YAML and CSV
    quote: re.compile(rf"(?:\\+.|[^\\\n{quote}]|{quote}{quote}|{quote}(?!{_CLOSED}))*") for quote in "\"'"
}
_OPENING = re.compile(r"\\*([\"'])")
_LINE = re.compile(r"[^\r\n]*")
_WORDS = re.compile(r"(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[^\s,]|,(?!\s|\Z))*")
_OF_QUERY = re.compile(r"[^\s&#]*")
_OF_MEMBER = re.compile(r"[\[{].*|(?:\\.|[^,{}\[\]\n\\])*")

_HEADER = re.compile(r"([\"']?)\b(?i:(?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(\\*[\"'])?\s*[:=][ \t]*")
_BEARER = re.compile(r"([\"']?)\b(?:(?i:bearer)|Basic(?= +[\w+/.=-]{4,}(?:[\s\"']|\Z))) +")  # without its header
_QUERY = re.compile(r"[?&;]([\w.-]+)=")  # of https://host/path?name=value
_KEY = re.compile(r"[^\s:\"'\[\]{}]+(?::[\w]+)?")  # of an override; key@from:to moves a group
_PAIR = re.compile(r"([\"']?)(?<![\w.?&;-])([\w.-]+)=")  # an override, or a line of source
_MEMBER = re.compile(r"([\"'])([\w.-]+)\\*\1\s*:[ \t]*")  # in {"key": value}
_PLAIN_MEMBER = re.compile(r"(?<![\w.-])([\w.-]+)\s*:[ \t]*")  # in {key: value}
_LOGIN = re.compile(r"[^\s/?#:@]*:")  # user:password@host; the password may hold / ? # and @
_ADDRESS = re.compile(r"://")
_UNSPACED = re.compile(r"\S*")
_USER = re.compile(r"[^\s/?#]*(?=@)")  # user@host
_BEFORE = re.compile(r"([\"'])(?:[\w.+~-]+=)?[A-Za-z][\w+.-]*\Z")  # the start of a quoted address, or of key=address
_Span = tuple[int, int] | None  # where a secret begins and ends


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret: ``WANDB_API_KEY``, ``model.args.password``, ``hfToken``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(words) and (
        any(word in _ANYWHERE for word in words) or words[-1].endswith(_ENDINGS) or words[-1] in _LAST
    )


def redacted(text: str) -> str:
    """A text without secrets: those that this process was given, and those of addresses, headers and ``key=value``."""
    for value in _given():
        text = text.replace(value, HIDDEN)
    for pattern, span in _PLACES:
        text = _replace(pattern, span, text)
    first, last = text.find("{"), text.rfind("}")
    if first < last:
        text = text[:first] + _replace(_PLAIN_MEMBER, _plain_member, text[first : last + 1]) + text[last + 1 :]
    return text


def redacted_argument(argument: str) -> str:
    """One word of a command line; of an override, the value goes by its key, however short it is."""
    key, equals, value = argument.partition("=")
    if not equals or not _KEY.fullmatch(key):
        return _redacted_value(argument)
    return f"{redacted(key)}={HIDDEN if is_secret(key) else _redacted_value(value)}"


def redacted_tree(node: Any, key: str = "") -> Any:
    """Plain containers without secrets: by key, and in every text."""
    if is_secret(key) and node is not None and not isinstance(node, bool):
        return HIDDEN
    if isinstance(node, dict):
        return {_redacted_key(name): redacted_tree(value, str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        is_header = len(node) == 2 and _HEADER.fullmatch(f"{node[0]}:") is not None
        return type(node)(HIDDEN if is_header and at else redacted_tree(one) for at, one in enumerate(node))
    return _redacted_value(node) if isinstance(node, str) else node


class RedactingFormatter(logging.Formatter):
    """Lines of a log, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        return visible(redacted(super().format(record)))


def _redacted_key(key: Any) -> Any:
    return redacted(key) if isinstance(key, str) else key


def _redacted_value(value: str) -> str:
    """A whole value: when it is an address, its password may hold spaces and quotes too."""
    found = re.match(r"\s*[\"']?[A-Za-z][\w+.-]*://", value)
    if found and _LOGIN.match(value, found.end()) and (end := value.rfind("@")) > found.end():
        value = f"{value[: found.end()]}{HIDDEN}{value[end:]}"
    return redacted(value)


def _replace(pattern: re.Pattern[str], span: Callable[[re.Match[str]], _Span], text: str) -> str:
    """Hide what ``span`` says of each match; what is hidden is not searched again."""
    pieces, done, at = [], 0, 0
    while found := pattern.search(text, at):
        at = found.end()
        if (where := span(found)) and where[0] < where[1]:
            pieces += [text[done : where[0]], HIDDEN]
            done = at = where[1]
    return "".join([*pieces, text[done:]])


def _address(found: re.Match[str]) -> _Span:
    text, begin = found.string, found.end()
    if not _LOGIN.match(text, begin):
        user = _USER.match(text, begin)
        return user.span() if user else None
    before = _BEFORE.search(text, max(0, begin - 200), found.start())
    whole = (_INSIDE[before[1]] if before else _UNSPACED).match(text, begin, begin + _LONGEST)
    return begin, text.rfind("@", begin, whole.end() if whole else begin)


def _header(found: re.Match[str]) -> _Span:
    text, begin = found.string, found.end()
    opening = _OPENING.match(text, begin)
    if opening and (found[2] or not found[1]):
        begin, inside = opening.end(), _INSIDE[opening[1]] if found[2] else _LINE
    else:
        inside = _INSIDE[found[1]] if found[1] and not found[2] else _LINE
    return begin, _end(inside, text, begin)


def _bearer(found: re.Match[str]) -> _Span:
    return found.end(), _end(_INSIDE[found[1]] if found[1] else _UNSPACED, found.string, found.end())


def _query(found: re.Match[str]) -> _Span:
    return _unquoted(_OF_QUERY, found) if is_secret(found[1]) else None


def _pair(found: re.Match[str]) -> _Span:
    if not is_secret(found[2]):
        return None
    if not found[1]:
        return _unquoted(_WORDS, found)
    return found.end(), _end(_INSIDE[found[1]], found.string, found.end())


def _unquoted(pattern: re.Pattern[str], found: re.Match[str]) -> _Span:
    """Up to the brackets and quotes that close the text around it."""
    begin, end = found.end(), _end(pattern, found.string, found.end())
    value = found.string[begin:end]
    return begin, begin + len(value.rstrip(")]}" if value[:1] in ("'", '"') else ")]}'\""))


def _member(found: re.Match[str]) -> _Span:
    return _value_of_member(found) if is_secret(found[2]) else None


def _plain_member(found: re.Match[str]) -> _Span:
    return _value_of_member(found) if is_secret(found[1]) else None


def _value_of_member(found: re.Match[str]) -> tuple[int, int]:
    begin = found.end()
    opening = _OPENING.match(found.string, begin)
    begin, inside = (opening.end(), _INSIDE[opening[1]]) if opening else (begin, _OF_MEMBER)
    return begin, _end(inside, found.string, begin)


def _end(pattern: re.Pattern[str], text: str, begin: int) -> int:
    found = pattern.match(text, begin)
    return found.end() if found else begin


_PLACES = (
    (_ADDRESS, _address), (_HEADER, _header), (_BEARER, _bearer),
    (_QUERY, _query), (_MEMBER, _member), (_PAIR, _pair),
)  # fmt: skip


def _given() -> list[str]:
    """The secrets of the environment and of the command line, longest first: one may be part of another."""
    values = {value.strip() for name, value in os.environ.items() if is_secret(name) and name not in _DIRECTORIES}
    for argument in sys.orig_argv:  # as typed: sys.argv is quoted for Hydra
        values.update(_of_override(argument))
    written = {form for value in values for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1])}
    return sorted((value for value in written if len(value) >= _SHORTEST), key=len, reverse=True)


def _of_override(argument: str) -> Iterator[str]:
    key, equals, value = argument.partition("=")
    if equals and is_secret(key):
        yield from (value.strip("'\""), *value.split(","))  # -m runs each of a,b
    elif "{" in value:
        for found in _PLAIN_MEMBER.finditer(value):
            if where := _plain_member(found):
                yield value[slice(*where)].strip("'\"")
    if "://" in value and (login := re.search(r"://[^\s/?#:@]*:(.*)@", value)):
        yield from (login[1], unquote(login[1]))
