"""Message templates that can be translated after formatting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any


class Message(str):
    """A formatted English message, with its template and the values inserted."""

    template: str
    values: dict[str, Any]


def msg(template: str, /, **values: Any) -> Message:
    """Return ``template.format(**values)`` as a translatable message."""
    text = Message(template.format(**values))
    text.template, text.values = template, values
    return text


def message_of(error: BaseException) -> str:
    """Return the message of an error; it is translatable if it was made by ``msg``."""
    message = error.args[0] if error.args else None
    return message if isinstance(message, Message) else str(error)


def join_messages(messages: Sequence[str]) -> str:
    """Join messages by commas; each stays translatable."""
    return reduce(lambda left, right: msg("{one}, {other}", one=left, other=right), messages)


def translate(text: str, catalogue: Mapping[str, str]) -> str:
    """Translate a message made by ``msg``; any other text is returned unchanged.

    Args:
        text: The message. Values that are messages themselves are translated too.
        catalogue: Maps English templates to templates of the other language with the same placeholders.
    """
    if not isinstance(text, Message):
        return text
    values = {
        name: translate(value, catalogue) if isinstance(value, str) else value for name, value in text.values.items()
    }
    return catalogue[text.template].format(**values)
