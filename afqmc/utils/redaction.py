"""Keep secrets out of what a run writes and prints: tokens, keys and passwords become ``***``.

A secret is recognised by the name before it (of a key, a variable, a header, an option), by its position in an address,
or by the form of a well-known token.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from afqmc.utils.errors import visible
from afqmc.utils.secret_names import hides, is_count, is_ordinary, is_secret

HIDDEN = "***"
_SHORTEST = 8  # characters of a value that is looked for in any text; a shorter one may be an ordinary word
_LONGEST = 4096  # characters of an address that are searched for its password
_DIRECTORIES = ("PWD", "OLDPWD")  # the shell's own, and no passwords

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
_NAMED = re.compile(r"([\"']?)(?<![\w./?&;%-])([\w-]++)(?:\\*[\"'])?[ \t]*:(?!//)[ \t]*")  # Name: value
_HYPHENATED = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+")
_PROSE = re.compile(r"[a-z]+[,;]? +\S")
_OPTION = re.compile(r"(?<![\w-])([\"']?)--?([A-Za-z][\w-]*+)(?:\1,)?[ \t]+(?=[^\s-])")  # --token value
_CREDENTIALS = re.compile(r"(?<![\w-])(?:-u|--(?:proxy-)?user)(?:[\"'],)?[ \t=]*")  # curl -u user:password
_BEARER = re.compile(r"([\"']?)\b(?:(?i:bearer)|Basic(?= +[\w+/.=-]{4,}(?:[\s\"']|\Z))) +")  # without its header
_QUERY = re.compile(r"[?&;]([\w.%\[\]-]++)=")  # of https://host/path?name=value
_KEY = re.compile(r"[^\s:\"'\[\]{}]+(?::[\w]+)?")  # of an override; key@from:to moves a group
_PAIR = re.compile(r"([\"']?)(?<![\w.?&;-])([\w.-]+)=")  # an override, or a line of source
_MEMBER = re.compile(r"([\"'])([\w.-]+)\\*\1\s*:[ \t]*")  # in {"key": value}
_PLAIN_MEMBER = re.compile(r"(?<![\w.-])([\w.-]+)\s*:[ \t]*")  # in {key: value}
_LOGIN = re.compile(r"[^\s/?#:@]*:")  # user:password@host; the password may hold / ? # and @
_ADDRESS = re.compile(r"://|(?<![\w/.:])//")
_NO_SCHEME = re.compile(
    r"(?<![\w.+~@/%-])(?!mailto:)(?=[\d.-]*[A-Za-z_])[\w.+~-]++:(?!//)(?=[^\s\"']{0,4096}@(?!sha256:)[\w\[])"
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{10,}|gh[oprsu]_[A-Za-z0-9]{10,}|github_pat_\w{10,}"
    r"|gl[a-z]{2,5}-[\w-]{8,}|sk-(?=[\w-]*\d)[\w-]{12,}|(?:AKIA|ASIA)[A-Z0-9]{8,}|xox[a-z]-[\w-]{8,}|AIza[\w-]{16,}"
    r"|pypi-[\w-]{16,}|wandb_v\d_\w{10,}|eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?)"
)
_UNQUOTED = re.compile(r"[^\s\"']*")
_UNSPACED = re.compile(r"\S*")
_USER = re.compile(r"[^\s/?#]*(?=@)")  # user@host
_NO_SCHEME_ALONE = re.compile(r"((?!mailto:)[\w.+~-]*[A-Za-z_][\w.+~-]*:(?!//)\S+)@(?!sha256:)[\w\[]\S*")
_BEFORE = re.compile(
    r"([\"'])(?:[\w.+~-]+=)?(?:[A-Za-z][\w+.-]*)?\Z"
)  # the start of a quoted address, or of key=address
_Span = tuple[int, int] | None  # where a secret begins and ends


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
    return f"{redacted(key)}={HIDDEN if hides(key, value) else _redacted_value(value)}"


def redacted_tree(node: Any, key: str = "") -> Any:
    """Plain containers without secrets: by key, and in every text."""
    if hides(key, node) and not (is_count(key) and isinstance(node, dict | list | tuple)):
        return HIDDEN
    if isinstance(node, dict):
        inherited = key if is_count(key) else ""
        return {_redacted_key(name): redacted_tree(value, inherited or str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_redacted_items(node, key if is_count(key) else ""))
    return _redacted_value(node) if isinstance(node, str) else node


class RedactingFormatter(logging.Formatter):
    """Lines of a log, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        return visible(redacted(super().format(record)))


def _redacted_items(items: Sequence[Any], key: str) -> Iterator[Any]:
    """Each of them: one that follows an option, or the name of a header in a pair, is its value."""
    name = ""
    for item in items:
        yield HIDDEN if name and isinstance(item, str) and hides(name, item) else redacted_tree(item, key)
        is_name = isinstance(item, str) and (item.startswith("-") or (len(items) == 2 and not is_ordinary(item)))
        name = item if is_name and re.fullmatch(r"[\w.-]+", item) else ""


def _redacted_key(key: Any) -> Any:
    return redacted(key) if isinstance(key, str) else key


def _redacted_value(value: str) -> str:
    """A whole value: when it is an address, its password may hold spaces and quotes too."""
    found = re.match(r"\s*[\"']?(?:[A-Za-z][\w+.-]*:)?//", value)
    if found and _LOGIN.match(value, found.end()) and (end := value.rfind("@")) > found.end():
        value = f"{value[: found.end()]}{HIDDEN}{value[end:]}"
    elif not found and (bare := _NO_SCHEME_ALONE.fullmatch(value)):
        value = f"{HIDDEN}{value[bare.end(1) :]}"
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
    return _hiding(unquote(found[1]), found.string, _unquoted(_OF_QUERY, found))


def _pair(found: re.Match[str]) -> _Span:
    if not is_secret(found[2]):
        return None
    if not found[1]:
        return _hiding(found[2], found.string, _unquoted(_WORDS, found))
    return found.end(), _end(_INSIDE[found[1]], found.string, found.end())


def _unquoted(pattern: re.Pattern[str], found: re.Match[str]) -> tuple[int, int]:
    """Up to the brackets and quotes that close the text around it."""
    begin, end = found.end(), _end(pattern, found.string, found.end())
    value = found.string[begin:end]
    return begin, begin + len(value.rstrip(")]}" if value[:1] in ("'", '"') else ")]}'\""))


def _named(found: re.Match[str]) -> _Span:
    """The value of ``Name: value``: the line of a header's, else a word, unless this is ordinary text."""
    name, text, begin = found[2].lstrip("-"), found.string, found.end()
    if not is_secret(name) or is_ordinary(name):
        return None
    if _HYPHENATED.fullmatch(name) or _OPENING.match(text, begin):
        inside = _INSIDE[found[1]] if found[1] else _LINE
        if opening := _OPENING.match(text, begin):
            begin, inside = opening.end(), _INSIDE[opening[1]]
        return _hiding(name, text, (begin, _end(inside, text, begin)))
    is_member = "{" in text[: found.start()] and "}" in text[begin:] and text[: found.start()].rstrip()[-1:] in "{,"
    if _PROSE.match(text, begin) or is_member:  # a member is hidden as such
        return None
    return _hiding(name, text, _unquoted(_WORDS, found))


def _option(found: re.Match[str]) -> _Span:
    return _hiding(found[2], found.string, _of_quoted(found, _UNSPACED))


def _credentials(found: re.Match[str]) -> _Span:
    begin, end = _of_quoted(found, _UNSPACED)
    return (begin, end) if ":" in found.string[begin + 1 : end] else None


def _no_scheme(found: re.Match[str]) -> _Span:
    """The user too, as of other addresses."""
    begin = found.start()
    whole = _UNQUOTED.match(found.string, begin, begin + _LONGEST)
    return begin, found.string.rfind("@", begin, whole.end() if whole else begin)


def _token(found: re.Match[str]) -> _Span:
    return found.span()


def _member(found: re.Match[str]) -> _Span:
    return _hiding(found[2], found.string, _of_quoted(found, _OF_MEMBER))


def _plain_member(found: re.Match[str]) -> _Span:
    return _hiding(found[1], found.string, _of_quoted(found, _OF_MEMBER))


def _of_quoted(found: re.Match[str], unquoted: re.Pattern[str]) -> tuple[int, int]:
    begin = found.end()
    opening = _OPENING.match(found.string, begin)
    begin, inside = (opening.end(), _INSIDE[opening[1]]) if opening else (begin, unquoted)
    return begin, _end(inside, found.string, begin)


def _hiding(name: str, text: str, where: tuple[int, int]) -> _Span:
    return where if hides(name, text[slice(*where)]) else None


def _end(pattern: re.Pattern[str], text: str, begin: int) -> int:
    found = pattern.match(text, begin)
    return found.end() if found else begin


_PLACES = (
    (_ADDRESS, _address), (_HEADER, _header), (_BEARER, _bearer), (_NAMED, _named), (_OPTION, _option),
    (_CREDENTIALS, _credentials), (_NO_SCHEME, _no_scheme), (_QUERY, _query), (_MEMBER, _member), (_PAIR, _pair),
    (_TOKEN, _token),
)  # fmt: skip


def _given() -> list[str]:
    """The secrets of the environment and of the command line, longest first: one may be part of another."""
    values = {value.strip() for name, value in os.environ.items() if hides(name, value) and name not in _DIRECTORIES}
    for argument in sys.orig_argv:  # as typed: sys.argv is quoted for Hydra
        values.update(_of_override(argument))
    written = {form for value in values for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1])}
    return sorted((value for value in written if len(value) >= _SHORTEST), key=len, reverse=True)


def _of_override(argument: str) -> Iterator[str]:
    key, equals, value = argument.partition("=")
    if equals and hides(key, value):
        yield from (value.strip("'\""), *value.split(","))  # -m runs each of a,b
    elif "{" in value:
        for found in _PLAIN_MEMBER.finditer(value):
            if where := _plain_member(found):
                yield value[slice(*where)].strip("'\"")
    if "://" in value and (login := re.search(r"://[^\s/?#:@]*:(.*)@", value)):
        yield from (login[1], unquote(login[1]))
