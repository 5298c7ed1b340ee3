"""The first row of a table: the names of its columns, or the first pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from afqmc.data.config import DatasetConfig

# names that the columns of sentence pairs often have
_USUAL = {
    "label",
    "labels",
    "gold_label",
    "is_duplicate",
    "similarity",
    "score",
    "target",
    "id",
    "idx",
    "index",
    "guid",
}
_USUAL |= {f"{name}{end}" for name in ("sentence", "sent", "text", "question", "query", "q", "s") for end in "12ab"}
_USUAL |= {"sentence_a", "sentence_b", "text_a", "text_b", "query", "title", "premise", "hypothesis"}


def wrong_first_row(cells: Sequence[Any], config: DatasetConfig, own_names: bool = False) -> str:
    """What is wrong with the first row, as a header line or, with ``dataset.columns``, as a pair; empty if nothing."""
    if config.columns is None or own_names:
        return _bad_header([str(cell) for cell in cells], config)
    return _header_as_pair(cells, config)


def _header_as_pair(cells: Sequence[Any], config: DatasetConfig) -> str:
    """A pair does not consist of names of columns; of these, at least two are there, or the label's in its place."""
    columns = config.columns or []
    fields = (config.sentence1_field, config.sentence2_field, config.label_field, config.id_field)
    names = {_plain(name) for name in (*columns, *fields, *_USUAL)}
    row = [_plain(cell) for cell in cells]
    label = next((cell for name, cell in zip(columns, row, strict=False) if name == config.label_field), "")
    if sum(cell in names for cell in row) >= 2 or label in (_plain(config.label_field), "label"):
        return (
            f"is a header line ({', '.join(map(str, cells))}), but dataset.columns is for files without one; leave "
            "dataset.columns out (dataset.columns=null), or remove the line"
        )
    return ""


def _plain(cell: object) -> str:
    """A name without case, spaces and quotation marks around it."""
    return str(cell).strip("\ufeff \t\r\n\"'").casefold()


def _bad_header(columns: list[str], config: DatasetConfig) -> str:
    fields = [config.sentence1_field, config.sentence2_field]
    missing = [field for field in fields if field not in columns]
    if len(columns) == 1 and (mark := likely_delimiter(columns[0])):
        return f"one column, {columns[0]!r}: its delimiter seems to be {mark}; set dataset.delimiter"
    if len(missing) == 2 and config.label_field not in columns:
        wanted = ", ".join([*fields, config.label_field])
        return (
            f"the header has {', '.join(columns)}, and none of {wanted}; dataset.*_field names the columns, "
            "and a file without a header line needs dataset.columns=[...]"
        )
    return f"the header has {most_common(columns)!r} twice" if len(set(columns)) < len(columns) else ""


def wrong_width(cells: Sequence[Any], columns: Sequence[Any], breaks: int) -> str:
    """What is said of a row with too many or too few cells, ``breaks`` of its line breaks being inside cells."""
    text = f"{len(cells)} columns; {len(columns)} were expected ({', '.join(map(str, columns))})"
    if breaks:
        return f"{text}; the row goes on for {breaks + 1} lines: is a quotation mark not closed?"
    if len(cells) == 1 and (mark := likely_delimiter(str(cells[0]))):
        return f"{text}; the delimiter seems to be {mark}: set dataset.delimiter"
    if any(str(cell).startswith('"') for cell in cells):
        return f"{text}; if quotation marks enclose cells, set dataset.quoting=double"
    return text


def likely_delimiter(text: str) -> str:
    """The delimiter that a line seems to have, as the message shows it; empty if none."""
    mark = next((mark for mark in ";\t|," if mark in text), "")
    return "a tab" if mark == "\t" else repr(mark) if mark else ""


def most_common(names: Iterable[str]) -> str:
    """The name that is there most often."""
    return Counter(names).most_common(1)[0][0]
