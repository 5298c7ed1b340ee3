"""Pairs from rows: two sentences and a label each; every complaint names the file and the line."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from afqmc.dataset.config import DatasetConfig
from afqmc.dataset.files import DataFile
from afqmc.dataset.rows import read_rows
from afqmc.errors import InputError, did_you_mean, in_brief

Complain = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: two sentences, the name of their class where it is known, and where it was read."""

    id: int | str
    sentence1: str
    sentence2: str
    label: str | None
    line: int


def read_pairs(
    file: DataFile,
    config: DatasetConfig,
    *,
    labelled: bool | None,
    complain: Complain | None = None,
    keep: Keep | None = None,
) -> Iterator[Pair]:
    """Yield the pairs of a file, in its order.

    Args:
        file: What to read.
        config: Names of the fields.
        labelled: True: a label is required; False: labels are not read; None: all rows or none have one.
        complain: Is called with each complaint, and the row is left out. Without it, the first one is raised.
        keep: Is called with all columns of each row that becomes a pair.

    Raises:
        InputError: ``file:line: what was found; what is legal``.
    """

    def refuse(line: int, what: str) -> None:
        message = f"{file.name}:{line}: {in_brief(what)}"
        if complain is None:
            raise InputError(message)
        complain(message)

    kind: type | None = None
    seen_label: bool | None = labelled
    for number, (line, row) in enumerate(read_rows(file, config, refuse)):
        try:
            first = _sentence(row, "sentence1_field", config)
            second = _sentence(row, "sentence2_field", config)
            value = None if labelled is False else _label(row, config.label_field, kind)
            if labelled and value is None:
                raise ValueError(_missing(row, "label_field", config))
            if seen_label is not None and labelled is None and seen_label is not (value is not None):
                one, other = ("a", "none") if value is not None else ("no", "one")
                raise ValueError(f"has {one} {config.label_field!r}, the rows before it have {other}; all rows or none")
        except ValueError as error:
            refuse(line, str(error))
            continue
        if labelled is None:
            seen_label = value is not None
        if value is not None:
            kind = type(value)
        if keep is not None:
            keep(row)
        identity = row.get(config.id_field)
        yield Pair(
            id=identity if isinstance(identity, int | str) else number,
            sentence1=first,
            sentence2=second,
            label=None if value is None else label_name(value),
            line=line,
        )


def label_name(value: str | int | bool) -> str:
    """A label as its name: ``1`` and ``"1 "`` are ``"1"``, ``true`` and ``"True"`` are ``"true"``."""
    name = str(value).strip()
    return name.lower() if name in ("True", "False") else name


def _missing(row: dict[str, Any], key: str, config: DatasetConfig) -> str:
    field = getattr(config, key)
    if field in row:
        return f"{field!r} is empty"
    taken = {config.sentence1_field, config.sentence2_field, config.label_field, config.id_field}
    hint = did_you_mean(field, row.keys() - taken)
    return f"no {field!r}{hint} (dataset.{key} names it)"


def _sentence(row: dict[str, Any], key: str, config: DatasetConfig) -> str:
    field = getattr(config, key)
    text = row.get(field)
    if text is None:
        raise ValueError(_missing(row, key, config))
    if not isinstance(text, str):
        raise ValueError(f"{field!r} is {text!r}; it must be a string")
    if not text.strip():
        raise ValueError(_missing(row, key, config))
    if not text.isprintable():
        _refuse_unwritable(field, text)
        _refuse_invisible(field, text)
    return text


def _refuse_unwritable(field: str, text: str) -> None:
    half = next((letter for letter in text if unicodedata.category(letter) == "Cs"), "")
    if half:  # JSON may spell half an emoji, which no tokenizer and no file takes
        raise ValueError(f"{field!r} has half a character, {half!a}; surrogates must come in pairs")
    if "\0" in text:
        raise ValueError(f"{field!r} holds a NUL character (U+0000); take it out")


def _refuse_invisible(field: str, text: str) -> None:
    if all(letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc") for letter in text):
        raise ValueError(f"{field!r} is empty: nothing but invisible characters, such as {text.strip()[0]!a}")


def _label(row: dict[str, Any], field: str, kind: type | None) -> str | int | bool | None:
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str | int):
        raise ValueError(f"{field!r} is {value!r}; it must be a string or a whole number")
    if isinstance(value, str) and not value.isprintable():
        _refuse_unwritable(field, value)
    if kind not in (None, type(value)):
        raise ValueError(f"mixed label types: {value!r} here, {kind.__name__} before" if kind else "")
    return value
