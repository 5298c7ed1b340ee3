"""Recognize secrets by name: names of keys, environment variables, headers, query parameters and options."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_SECRET_WORDS = {  # a name that contains one of these words
    "auth", "authorization", "cookie", "cookies", "credential", "credentials", "creds", "secret", "secrets",
    "signature",
}  # fmt: skip
_SECRET_LAST_WORDS = {  # a name that ends in one of these words
    "bearer", "jwt", "jwts", "key", "keys", "otp", "pass", "passcode", "pat", "pw", "pwd", "sas", "sig", "tokens",
    "totp",
}  # fmt: skip
_SECRET_COMPOUND = re.compile(  # words without a separator: dbpassword, secretkey
    r".*(?:pass(?:phrase|word|wd|code)s?|secret|credentials?|token)"
    r"|.*(?:access|account|aes|api|auth|client|encryption|hmac|license|master|openai|pass|private|rsa|secret|service"
    r"|session|shared|signing|ssh|storage|subscription|wandb)(?:keys?|tokens)"
    r"|(?:admin|db|ftp|ldap|mail|my|mysql|pg|postgres|redis|root|smtp|ssh|sudo|user)(?:pass|pw|pwd)"
)
_TOKEN_COUNTS = {  # with one of these words, "tokens" is a count or belongs to a tokenizer
    "added", "batch", "completion", "count", "dev", "extra", "input", "max", "mean", "min", "n", "new", "num", "number",
    "output", "padding", "per", "prompt", "seen", "special", "test", "total", "train",
}  # fmt: skip
_SUFFIXES = {"base", "hex", "old", "new", "plain", "raw", "str", "string", "text", "value", "values"}  # token_value
_ORDINARY_WORDS = {"key", "keys", "pat", "sig"}
_WORD = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+")
_NUMBERS = re.compile(r"(?:choice|range|interval)?[\d\s.,eE+_()\[\]-]*")
_NOT_SECRET = re.compile(r"(?i:true|false|none|null|no|yes|on|off|value|\?\?\?|\*\*\*|)")  # messages say key=value


@lru_cache(maxsize=4096)  # a comparison of 1,000 runs asks for the same keys again and again
def is_secret(name: str) -> bool:
    """Return whether this is the name of a secret, such as ``WANDB_API_KEY`` or ``model.kwargs.password``."""
    words = _words(name)
    if any(word in _SECRET_WORDS for word in words):
        return True
    if len(words) > 1 and words[-1] in _SUFFIXES:
        return _SECRET_COMPOUND.fullmatch("".join(words[-3:-1])) is not None
    if not words or (words[-1] == "tokens" and not _TOKEN_COUNTS.isdisjoint(words)):
        return False
    return words[-1] in _SECRET_LAST_WORDS or _SECRET_COMPOUND.fullmatch(words[-1]) is not None


def is_secret_value(name: str, value: Any) -> bool:
    """Return whether a value is a secret by its name. Booleans and null never are, nor are numbers named ``tokens``."""
    if not is_secret(name) or value is None or isinstance(value, bool):
        return False
    text = str(value).strip().strip("\"'")
    return _NOT_SECRET.fullmatch(text) is None and not (is_count(name) and _NUMBERS.fullmatch(text))


def is_count(name: str) -> bool:
    """Return whether a number of this name is a count of tokens."""
    return _words(name)[-1:] == ["tokens"]


def is_ordinary(name: str) -> bool:
    """Return whether the name is also a word of ordinary text, such as in ``unknown key: lr``."""
    return name.lower() in _ORDINARY_WORDS


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
