"""The first row of a table: the names of its columns, or the first pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from afqmc.data.config import DatasetConfig, Format
from afqmc.data.labels import label_name

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


def has_no_header(format: Format, config: DatasetConfig) -> bool:
    """Whether the first row of such a file is a pair: ``dataset.columns`` names the columns of this format."""
    return config.columns is not None and format in (Format.csv, Format.tsv, Format.xlsx)


def foreign_first_label(labels: Sequence[Any], known: AbstractSet[str]) -> str:
    """Explain why the first row is a header line: its label is unknown and a word, and all other labels are known.

    Args:
        labels: Of the first row and the rows after it, as they are in the file.
        known: Names of labels.

    Returns:
        The message; empty where the first row may be a pair.
    """
    names = ["" if label is None else label_name(label) for label in labels]
    if len(names) < 2 or names[0] in known or not _is_word(names[0]) or not set(names[1:]) <= known:
        return ""
    return _header_hint(f"its label {names[0]!r} is unknown, and those of the rows after it are known")


def header_label(first: str, counts: Mapping[str, int]) -> str:
    """The same for training pairs, which define the classes: no other row has the first row's label."""
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
        f"seems to be a header line: {reason}; dataset.columns is for files without a header: leave it out "
        f"(dataset.columns=null), or remove the line{otherwise}"
    )


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
