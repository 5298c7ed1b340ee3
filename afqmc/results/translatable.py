"""Sentences that remember how they were made, to be said in another language too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any


class Message(str):
    """An English sentence: a text as any other, with its template and what was put into that."""

    template: str
    values: dict[str, Any]


def msg(template: str, /, **values: Any) -> Message:
    """``template.format(**values)``, remembered."""
    text = Message(template.format(**values))
    text.template, text.values = template, values
    return text


def message_of(error: BaseException) -> str:
    """What an error says, remembered where it was made by ``msg``."""
    told = error.args[0] if error.args else None
    return told if isinstance(told, Message) else str(error)


def join_messages(parts: Sequence[str]) -> str:
    """``a, b, c``; each may be a sentence of its own."""
    return reduce(lambda one, other: msg("{one}, {other}", one=one, other=other), parts)


def translate(text: str, catalogue: Mapping[str, str]) -> str:
    """The same in the catalogue's language; names, numbers and whatever else was not made by ``msg`` stay.

    Args:
        text: What is said.
        catalogue: By the English template, that of the other language with the same places.
    """
    if not isinstance(text, Message):
        return text
    values = {
        name: translate(value, catalogue) if isinstance(value, str) else value for name, value in text.values.items()
    }
    return catalogue[text.template].format(**values)
