"""Decide by its name whether a value is a secret: of keys, variables, headers, query parameters and options alike."""

from __future__ import annotations

import re
from typing import Any

_ANYWHERE = {
    "auth", "authorization", "cookie", "cookies", "credential", "credentials", "creds", "secret", "secrets",
    "signature",
}  # fmt: skip
_LAST = {
    "bearer", "jwt", "jwts", "key", "keys", "otp", "pass", "passcode", "pat", "pw", "pwd", "sas", "sig", "tokens",
    "totp",
}  # fmt: skip
_JOINED = re.compile(  # words without a separator: dbpassword, secretkey
    r".*(?:pass(?:phrase|word|wd|code)s?|secret|credentials?|token)"
    r"|.*(?:access|account|aes|api|auth|client|encryption|hmac|license|master|openai|pass|private|rsa|secret|service"
    r"|session|shared|signing|ssh|storage|subscription|wandb)(?:keys?|tokens)"
    r"|(?:admin|db|ftp|ldap|mail|my|mysql|pg|postgres|redis|root|smtp|ssh|sudo|user)(?:pass|pw|pwd)"
)
_COUNTED = {  # so many tokens, or those of a tokenizer
    "added", "batch", "completion", "count", "dev", "extra", "input", "max", "mean", "min", "n", "new", "num", "number",
    "output", "padding", "per", "prompt", "seen", "special", "test", "total", "train",
}  # fmt: skip
_ENDINGS = {"base", "hex", "old", "new", "plain", "raw", "str", "string", "text", "value", "values"}  # of token_value
_ORDINARY = {"key", "keys", "pat", "sig"}
_WORD = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+")
_NUMBERS = re.compile(r"(?:choice|range|interval)?[\d\s.,eE+_()\[\]-]*")
_NO_SECRET = re.compile(r"(?i:true|false|none|null|no|yes|on|off|\?\?\?|\*\*\*|)")


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret: ``WANDB_API_KEY``, ``model.args.password``, ``X-Api-Key``."""
    words = _words(name)
    if any(word in _ANYWHERE for word in words):
        return True
    if len(words) > 1 and words[-1] in _ENDINGS:
        return _JOINED.fullmatch("".join(words[-3:-1])) is not None
    if not words or (words[-1] == "tokens" and not _COUNTED.isdisjoint(words)):
        return False
    return words[-1] in _LAST or _JOINED.fullmatch(words[-1]) is not None


def hides(name: str, value: Any) -> bool:
    """Whether this value of this name is a secret: ``true`` is none, nor are numbers of ``tokens``."""
    if not is_secret(name) or value is None or isinstance(value, bool):
        return False
    text = str(value).strip().strip("\"'")
    return _NO_SECRET.fullmatch(text) is None and not (is_count(name) and _NUMBERS.fullmatch(text))


def is_count(name: str) -> bool:
    """Whether numbers of this name are counts."""
    return _words(name)[-1:] == ["tokens"]


def is_ordinary(name: str) -> bool:
    """Whether this is also a word of ordinary text: ``unknown key: lr``."""
    return name.lower() in _ORDINARY


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
