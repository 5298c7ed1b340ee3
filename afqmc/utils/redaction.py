"""Redact secrets in everything that a run writes and prints: tokens, keys and passwords become ``***``.

A secret is recognized by its name (of a key, a variable, a header, an option), by its position in a URL, or by the
format of well-known tokens. The values of secret environment variables and arguments are redacted in any text.
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
from afqmc.utils.secret_names import is_count, is_ordinary, is_secret, is_secret_value

HIDDEN = "***"
_MIN_LENGTH = 8  # characters of a known secret that is redacted in any text; a shorter one may be an ordinary word
_MAX_URL = 4096  # characters of a URL that are searched for its password
_DIRECTORIES = ("PWD", "OLDPWD")  # working directories of the shell; the names look like passwords

_CLOSED = r"(?=[\s,)\]}:;]|\Z)"  # what follows a closing quote
_QUOTED = {  # the text between quotes; a doubled quote belongs to it, as in YAML and CSV
    quote: re.compile(rf"(?:\\+.|[^\\\n{quote}]|{quote}{quote}|{quote}(?!{_CLOSED}))*") for quote in "\"'"
}
_OPENING = re.compile(r"\\*([\"'])")
_LINE = re.compile(r"[^\r\n]*")
_WORDS = re.compile(r"(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[^\s,]|,(?!\s|\Z))*")
_QUERY_VALUE = re.compile(r"[^\s&#]*")
_MEMBER_VALUE = re.compile(r"[\[{].*|(?:\\.|[^,{}\[\]\n\\])*")

_HEADER = re.compile(r"([\"']?)\b(?i:(?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(\\*[\"'])?\s*[:=][ \t]*")
_NAMED = re.compile(r"([\"']?)(?<![\w./?&;%-])([\w-]++)(?:\\*[\"'])?[ \t]*:(?!//)[ \t]*")  # Name: value
_HYPHENATED = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+")
_PROSE = re.compile(r"[a-z]+[,;]? +\S")
_OPTION = re.compile(r"(?<![\w-])([\"']?)--?([A-Za-z][\w-]*+)(?:\1,)?[ \t]+(?=[^\s-])")  # --token value
_CREDENTIALS = re.compile(r"(?<![\w-])(?:-u|--(?:proxy-)?user)(?:[\"'],)?[ \t=]*")  # curl -u user:password
_BEARER = re.compile(r"([\"']?)\b(?:(?i:bearer)|Basic(?= +[\w+/.=-]{4,}(?:[\s\"']|\Z))) +")  # without a header name
_QUERY = re.compile(r"[?&;]([\w.%\[\]-]++)=")  # of https://host/path?name=value
_OVERRIDE_KEY = re.compile(r"[^\s:\"'\[\]{}]+(?::[\w]+)?")  # key of an override; also group@from:to
_ASSIGNMENT = re.compile(r"([\"']?)(?<![\w.?&;-])([\w.-]+)=")  # name=value: an override, or a line of source code
_MEMBER = re.compile(r"([\"'])([\w.-]+)\\*\1\s*:[ \t]*")  # of {"key": value}
_PLAIN_MEMBER = re.compile(r"(?<![\w.-])([\w.-]+)\s*:[ \t]*")  # of {key: value}
_LOGIN = re.compile(r"[^\s/?#:@]*:")  # user:password@host; the password may hold / ? # and @
_URL = re.compile(r"://|(?<![\w/.:])//")
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
# the opening quote of a quoted URL, or of a quoted key=URL
_QUOTED_URL = re.compile(r"([\"'])(?:[\w.+~-]+=)?(?:[A-Za-z][\w+.-]*)?\Z")
_Span = tuple[int, int] | None  # start and end of a secret


def redacted(text: str) -> str:
    """Return a text with all secrets redacted: known ones, and those in URLs, headers, options and ``key=value``."""
    for value in _known_secrets():
        text = text.replace(value, HIDDEN)
    for pattern, span in _RULES:
        text = _replace(pattern, span, text)
    first, last = text.find("{"), text.rfind("}")
    if first < last:
        text = text[:first] + _replace(_PLAIN_MEMBER, _plain_member, text[first : last + 1]) + text[last + 1 :]
    return text


def redacted_argument(argument: str) -> str:
    """Redact one argument of a command line. If it is an override, its key decides, however short the value is."""
    key, equals, value = argument.partition("=")
    if not equals or not _OVERRIDE_KEY.fullmatch(key):
        return _redacted_value(argument)
    return f"{redacted(key)}={HIDDEN if is_secret_value(key, value) else _redacted_value(value)}"


def redacted_tree(node: Any, key: str = "") -> Any:
    """Redact nested plain containers: values of secret keys, and secrets in any text."""
    if is_secret_value(key, node) and not (is_count(key) and isinstance(node, dict | list | tuple)):
        return HIDDEN
    if isinstance(node, dict):
        inherited = key if is_count(key) else ""
        return {_redacted_key(name): redacted_tree(value, inherited or str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_redacted_items(node, key if is_count(key) else ""))
    return _redacted_value(node) if isinstance(node, str) else node


class RedactingFormatter(logging.Formatter):
    """Log formatter that redacts secrets in messages and tracebacks, and escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, including its traceback."""
        return visible(redacted(super().format(record)))


def _redacted_items(items: Sequence[Any], key: str) -> Iterator[Any]:
    """Redact the items of a list. A text after ``--option``, or the second item of ``[header, value]``, is a value."""
    name = ""
    for item in items:
        yield HIDDEN if name and isinstance(item, str) and is_secret_value(name, item) else redacted_tree(item, key)
        is_name = isinstance(item, str) and (item.startswith("-") or (len(items) == 2 and not is_ordinary(item)))
        name = item if is_name and re.fullmatch(r"[\w.-]+", item) else ""


def _redacted_key(key: Any) -> Any:
    return redacted(key) if isinstance(key, str) else key


def _redacted_value(value: str) -> str:
    """Redact a complete value. If it is a URL, its password may contain spaces and quotes."""
    match = re.match(r"\s*[\"']?(?:[A-Za-z][\w+.-]*:)?//", value)
    if match and _LOGIN.match(value, match.end()) and (end := value.rfind("@")) > match.end():
        value = f"{value[: match.end()]}{HIDDEN}{value[end:]}"
    elif not match and (bare := _NO_SCHEME_ALONE.fullmatch(value)):
        value = f"{HIDDEN}{value[bare.end(1) :]}"
    return redacted(value)


def _replace(pattern: re.Pattern[str], span: Callable[[re.Match[str]], _Span], text: str) -> str:
    """Replace the part of each match that ``span`` returns; the search continues behind the replaced part."""
    pieces, copied, start = [], 0, 0
    while match := pattern.search(text, start):
        start = match.end()
        if (secret := span(match)) and secret[0] < secret[1]:
            pieces += [text[copied : secret[0]], HIDDEN]
            copied = start = secret[1]
    return "".join([*pieces, text[copied:]])


# Each of the following functions returns the span of the secret in a match of one pattern, or None.


def _url(match: re.Match[str]) -> _Span:
    text, begin = match.string, match.end()
    if not _LOGIN.match(text, begin):
        user = _USER.match(text, begin)
        return user.span() if user else None
    quote = _QUOTED_URL.search(text, max(0, begin - 200), match.start())
    pattern = _QUOTED[quote[1]] if quote else _UNSPACED
    return begin, text.rfind("@", begin, _end(pattern, text, begin, begin + _MAX_URL))


def _header(match: re.Match[str]) -> _Span:
    text, begin = match.string, match.end()
    opening = _OPENING.match(text, begin)
    if opening and (match[2] or not match[1]):
        begin, inside = opening.end(), _QUOTED[opening[1]] if match[2] else _LINE
    else:
        inside = _QUOTED[match[1]] if match[1] and not match[2] else _LINE
    return begin, _end(inside, text, begin)


def _bearer(match: re.Match[str]) -> _Span:
    return match.end(), _end(_QUOTED[match[1]] if match[1] else _UNSPACED, match.string, match.end())


def _query(match: re.Match[str]) -> _Span:
    return _if_secret(unquote(match[1]), match.string, _unquoted(_QUERY_VALUE, match))


def _assignment(match: re.Match[str]) -> _Span:
    if not is_secret(match[2]):
        return None
    if not match[1]:
        return _if_secret(match[2], match.string, _unquoted(_WORDS, match))
    return match.end(), _end(_QUOTED[match[1]], match.string, match.end())


def _unquoted(pattern: re.Pattern[str], match: re.Match[str]) -> tuple[int, int]:
    """Return the span of an unquoted value, without brackets and quotes that close the surrounding text."""
    begin, end = match.end(), _end(pattern, match.string, match.end())
    value = match.string[begin:end]
    return begin, begin + len(value.rstrip(")]}" if value[:1] in ("'", '"') else ")]}'\""))


def _named(match: re.Match[str]) -> _Span:
    """Return the value of ``Name: value``: the rest of the line for a header, else one word; None in ordinary text."""
    name, text, begin = match[2].lstrip("-"), match.string, match.end()
    if not is_secret(name) or is_ordinary(name):
        return None
    if _HYPHENATED.fullmatch(name) or _OPENING.match(text, begin):
        return _if_secret(name, text, _value_span(match, _QUOTED[match[1]] if match[1] else _LINE))
    is_member = "{" in text[: match.start()] and "}" in text[begin:] and text[: match.start()].rstrip()[-1:] in "{,"
    if _PROSE.match(text, begin) or is_member:  # a member of {...} has its own rule
        return None
    return _if_secret(name, text, _unquoted(_WORDS, match))


def _option(match: re.Match[str]) -> _Span:
    return _if_secret(match[2], match.string, _value_span(match, _UNSPACED))


def _credentials(match: re.Match[str]) -> _Span:
    begin, end = _value_span(match, _UNSPACED)
    return (begin, end) if ":" in match.string[begin + 1 : end] else None


def _no_scheme(match: re.Match[str]) -> _Span:
    """Return user and password of ``user:password@host``."""
    begin = match.start()
    return begin, match.string.rfind("@", begin, _end(_UNQUOTED, match.string, begin, begin + _MAX_URL))


def _token(match: re.Match[str]) -> _Span:
    return match.span()


def _member(match: re.Match[str]) -> _Span:
    return _if_secret(match[2], match.string, _value_span(match, _MEMBER_VALUE))


def _plain_member(match: re.Match[str]) -> _Span:
    return _if_secret(match[1], match.string, _value_span(match, _MEMBER_VALUE))


def _value_span(match: re.Match[str], unquoted: re.Pattern[str]) -> tuple[int, int]:
    begin = match.end()
    opening = _OPENING.match(match.string, begin)
    begin, inside = (opening.end(), _QUOTED[opening[1]]) if opening else (begin, unquoted)
    return begin, _end(inside, match.string, begin)


def _if_secret(name: str, text: str, span: tuple[int, int]) -> _Span:
    return span if is_secret_value(name, text[slice(*span)]) else None


def _end(pattern: re.Pattern[str], text: str, begin: int, limit: int = sys.maxsize) -> int:
    match = pattern.match(text, begin, limit)
    return match.end() if match else begin


_RULES = (
    (_URL, _url),
    (_HEADER, _header),
    (_BEARER, _bearer),
    (_NAMED, _named),
    (_OPTION, _option),
    (_CREDENTIALS, _credentials),
    (_NO_SCHEME, _no_scheme),
    (_QUERY, _query),
    (_MEMBER, _member),
    (_ASSIGNMENT, _assignment),
    (_TOKEN, _token),
)


def _known_secrets() -> list[str]:
    """Return the secrets of the environment and the command line, longest first, as one may be part of another."""
    values = {
        value.strip() for name, value in os.environ.items() if is_secret_value(name, value) and name not in _DIRECTORIES
    }
    for argument in sys.orig_argv:  # as typed; sys.argv is quoted for Hydra
        values.update(_override_secrets(argument))
    spellings = {form for value in values for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1])}
    return sorted((value for value in spellings if len(value) >= _MIN_LENGTH), key=len, reverse=True)


def _override_secrets(argument: str) -> Iterator[str]:
    key, equals, value = argument.partition("=")
    if equals and is_secret_value(key, value):
        yield from (value.strip("'\""), *value.split(","))  # with -m, the value a,b is two values
    elif "{" in value:
        for match in _PLAIN_MEMBER.finditer(value):
            if span := _plain_member(match):
                yield value[slice(*span)].strip("'\"")
    if "://" in value and (login := re.search(r"://[^\s/?#:@]*:(.*)@", value)):
        yield from (login[1], unquote(login[1]))
