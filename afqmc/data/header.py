"""Checks of a table's first row (column names or the first pair), and hints for error messages about tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from afqmc.data.config import DatasetConfig, Format
from afqmc.data.labels import label_name

_COMMON_NAMES = {  # column names that data sets of sentence pairs often have
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
_COMMON_NAMES |= {f"{n}{end}" for n in ("sentence", "sent", "text", "question", "query", "q", "s") for end in "12ab"}
_COMMON_NAMES |= {"sentence_a", "sentence_b", "text_a", "text_b", "query", "title", "premise", "hypothesis"}


def wrong_first_row(cells: Sequence[Any], config: DatasetConfig, own_names: bool = False) -> str:
    """Return what is wrong with the first row as a header line or, with ``dataset.columns``, as a pair; else ''."""
    if config.columns is None or own_names:
        return _bad_header([str(cell) for cell in cells], config)
    return _header_as_pair(cells, config)


def _header_as_pair(cells: Sequence[Any], config: DatasetConfig) -> str:
    """Return a message if the first row looks like a header line.

    It does if two cells are column names, or if the label cell is the name of a label column.
    """
    columns = config.columns or []
    fields = (config.sentence1_field, config.sentence2_field, config.label_field, config.id_field)
    names = {_normalized(name) for name in (*columns, *fields, *_COMMON_NAMES)}
    row = [_normalized(cell) for cell in cells]
    label = next((cell for name, cell in zip(columns, row, strict=False) if name == config.label_field), "")
    if sum(cell in names for cell in row) >= 2 or label in (_normalized(config.label_field), "label"):
        return (
            f"is a header line ({', '.join(map(str, cells))}), but dataset.columns is for files without one; omit "
            "dataset.columns (dataset.columns=null), or remove the line"
        )
    return ""


def has_no_header(format: Format, config: DatasetConfig) -> bool:
    """Return whether a file has no header line, because ``dataset.columns`` names its columns."""
    return config.columns is not None and format in (Format.csv, Format.tsv, Format.xlsx)


def foreign_first_label(labels: Sequence[Any], valid: AbstractSet[str]) -> str:
    """Return a message if the first row looks like a header line: its label alone is not valid, and is a word.

    Args:
        labels: The labels of the first rows, as they are in the file.
        valid: Valid label names.

    Returns:
        The message; empty if the first row may be a pair.
    """
    names = ["" if label is None else label_name(label) for label in labels]
    if len(names) < 2 or names[0] in valid or not _is_word(names[0]) or not set(names[1:]) <= valid:
        return ""
    return _header_hint(f"its label {names[0]!r} is unknown, and those of the rows after it are known")


def header_label(first: str, counts: Mapping[str, int]) -> str:
    """Return a message if the first training row looks like a header line: no other row has its label, a word.

    Args:
        first: The label of the first row.
        counts: Pairs per label.
    """
    others = [count for name, count in counts.items() if name != first]
    if counts[first] > 1 or not _is_word(first) or not others or min(others) < 2:
        return ""
    return _header_hint(f"no other row has its label {first!r}", "; if it is a class, set dataset.labels=[...]")


def _is_word(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return bool(label)
    return False


def _header_hint(reason: str, otherwise: str = "") -> str:
    return (
        f"seems to be a header line: {reason}; dataset.columns is for files without a header: omit it "
        f"(dataset.columns=null), or remove the line{otherwise}"
    )


def _normalized(cell: object) -> str:
    """Return a name in lower case, without surrounding spaces and quotation marks."""
    return str(cell).strip("\ufeff \t\r\n\"'").casefold()


def _bad_header(columns: list[str], config: DatasetConfig) -> str:
    fields = [config.sentence1_field, config.sentence2_field]
    missing = [field for field in fields if field not in columns]
    if len(columns) == 1 and (mark := likely_delimiter(columns[0])):
        return f"one column, {columns[0]!r}: its delimiter seems to be {mark}; set dataset.delimiter"
    if len(missing) == 2 and config.label_field not in columns:
        expected = ", ".join([*fields, config.label_field])
        return (
            f"the header has {', '.join(columns)}, and none of {expected}; dataset.*_field names the columns, "
            "and a file without a header line needs dataset.columns=[...]"
        )
    return f"the header has {most_common(columns)!r} twice" if len(set(columns)) < len(columns) else ""


def wrong_width(cells: Sequence[Any], columns: Sequence[Any], breaks: int) -> str:
    """Return the message for a row with too many or too few cells, which have ``breaks`` line breaks inside them."""
    message = f"{len(cells)} columns; {len(columns)} were expected ({', '.join(map(str, columns))})"
    if breaks:
        return f"{message}; the row spans {breaks + 1} lines: is a quotation mark not closed?"
    if len(cells) == 1 and (mark := likely_delimiter(str(cells[0]))):
        return f"{message}; the delimiter seems to be {mark}: set dataset.delimiter"
    if any(str(cell).startswith('"') for cell in cells):
        return f"{message}; if quotation marks enclose cells, set dataset.quoting=double"
    return message


def likely_delimiter(text: str) -> str:
    """Return the probable delimiter of a line, as messages show it; empty if there is none."""
    mark = next((mark for mark in ";\t|," if mark in text), "")
    return "a tab" if mark == "\t" else repr(mark) if mark else ""


def most_common(names: Iterable[str]) -> str:
    """Return the name that occurs most often."""
    return Counter(names).most_common(1)[0][0]
