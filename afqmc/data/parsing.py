"""Turn the rows of a data file into checked pairs; each error names the file and the line."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from afqmc.data.cells import with_texts
from afqmc.data.config import DatasetConfig, Format, OnBadRow
from afqmc.data.header import foreign_first_label, has_no_header
from afqmc.data.labels import NO_LABEL, label_name, unknown_label
from afqmc.data.row_readers import iter_rows
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError, did_you_mean, elide

OnError = Callable[[str], None]
OnRow = Callable[[dict[str, Any]], None]
_FIRST_ROWS = 20  # rows whose labels show whether the first row is a header line


class Pair(NamedTuple):
    """One row of a data file: its id, two sentences, the label name if it has one, and its line."""

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
    index: Mapping[str, int] | None = None,
    on_error: OnError | None = None,
    report: ReadReport | None = None,
    on_row: OnRow | None = None,
) -> Iterator[Pair]:
    """Yield the pairs of a file in order, without those whose label is in ``drop_labels``.

    Args:
        file: The file to read.
        config: Names the fields and says how to treat invalid rows.
        labelled: True requires labels, False ignores them, None allows a file where all rows or none have one.
        index: The valid labels; without it, any label is accepted.
        on_error: Called with the message for each invalid row, which is then skipped. Without it, the first invalid row
            raises, unless ``on_bad_row`` is ``skip``. A prediction needs every row, so skipping applies to labelled
            files only.
        report: Counts the skipped rows.
        on_row: Called with all columns of each row that becomes a pair.

    Raises:
        InputError: ``file:line: what is wrong; what is allowed``.
    """
    report = ReadReport() if report is None else report
    report.file = file.name
    _reject_header_row(file, config, index)
    if config.on_bad_row is OnBadRow.skip and labelled is not False:
        on_error = report.skip
    is_unlabelled = labelled is None and _is_unlabelled(file, config, index)
    labels, ids = _Labels(config, labelled, index, report, is_unlabelled), _Ids(config, report)
    name1, name2, name_id = config.sentence1_field, config.sentence2_field, config.id_field
    needed = [name1, name2, name_id]
    needed += [] if labelled is False else [config.label_field]
    has_types = _has_types(file)

    def reject(line: int, reason: str) -> None:
        message = f"{file.name}:{line}: {elide(reason)}"
        if on_error is None:
            hint = "; predictions need every row: dataset.on_bad_row=skip does not apply to them"
            raise InputError(message + hint * (config.on_bad_row is OnBadRow.skip))
        on_error(message)

    def reject_unreadable(line: int, reason: str) -> None:
        report.rows += 1
        reject(line, reason)

    for line, row in iter_rows(file, config, reject_unreadable, all_columns=on_row is not None):
        report.rows += 1
        try:
            fields = with_texts(row, needed, config.id_field) if has_types else row
            if labels.dropped and labels.drops(fields):
                continue
            # a call per cell would take longer than these tests, which nearly all cells pass
            sentence1, sentence2, pair_id = fields.get(name1), fields.get(name2), fields.get(name_id)
            if not (type(sentence1) is str and sentence1.isprintable() and sentence1.strip()):
                sentence1 = _sentence(fields, "sentence1_field", config)
            if not (type(sentence2) is str and sentence2.isprintable() and sentence2.strip()):
                sentence2 = _sentence(fields, "sentence2_field", config)
            label = labels.read(fields)
            if not (ids.has_id and type(pair_id) is int):
                pair_id = ids.read(pair_id, fields)
        except ValueError as error:
            reject(line, str(error))
            continue
        if on_row is not None:
            on_row(row)
        yield Pair(pair_id, sentence1, sentence2, label, line)
    report.reject_too_many()


def _has_types(file: DataFile) -> bool:
    """Return whether the cells of a file are typed; those of CSV and TSV are text."""
    return file.format in (Format.xlsx, Format.parquet)


class _Ids:
    """Reads the ids of one file. Either all rows have an id, or none has and the row number is used.

    An ``id_field`` other than the default is required in every row, since the user has named it.
    """

    def __init__(self, config: DatasetConfig, report: ReadReport) -> None:
        self.config, self.report = config, report
        self.is_named = config.id_field != DatasetConfig.id_field
        self.has_id: bool | None = True if self.is_named else None  # whether the rows so far have ids

    def read(self, value: Any, row: dict[str, Any]) -> int | str:
        """Return the row's id, or its number counted from 0.

        Args:
            value: The value of the id field.
            row: The row.

        Raises:
            ValueError: for an id of an invalid type, or if only some rows have an id.
        """
        field = self.config.id_field
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise ValueError(f"{field!r} is {value!r}; an id must be a string or a whole number")
        has_id = value is not None and value != ""
        if self.is_named and not has_id:
            default = DatasetConfig.id_field
            raise ValueError(f"{_missing(row, 'id_field', self.config)}; dataset.id_field={default} numbers the rows")
        if self.has_id not in (None, has_id):
            here, before = ("no", "have one") if self.has_id else ("an", "have none")
            raise ValueError(f"has {here} {field!r}, but the rows before it {before}; all rows or none need an id")
        self.has_id = has_id
        return self.report.rows - 1 if value is None or value == "" else value


def _reject_header_row(file: DataFile, config: DatasetConfig, index: Mapping[str, int] | None) -> None:
    """Check, by the labels of the first rows, that a file declared to have no header line has none.

    Raises:
        InputError: naming the header line.
    """
    if index is None or not has_no_header(file.format, config):
        return
    first_rows: list[tuple[int, dict[str, Any]]] = []
    with suppress(InputError):  # reading the file afterwards raises it again
        first_rows += islice(iter_rows(file, config, lambda *_: None, all_columns=False), _FIRST_ROWS)
    valid = {*index, NO_LABEL, *(label_name(name) for name in config.drop_labels or ())}
    if reason := foreign_first_label([row.get(config.label_field) for _, row in first_rows], valid):
        raise InputError(f"{file.name}:{first_rows[0][0]}: {reason}")


def _is_unlabelled(file: DataFile, config: DatasetConfig, index: Mapping[str, int] | None) -> bool:
    """Return whether every label of a file is -1 or in ``drop_labels``. All its rows are then unlabelled pairs."""
    dropped = {label_name(name) for name in config.drop_labels or ()}
    if not dropped:
        return False
    placeholders = (dropped | {NO_LABEL}) - set(index or ())
    label = None
    for _, row in iter_rows(file, config, lambda *_: None, all_columns=False):
        label = (with_texts(row, [config.label_field], "") if _has_types(file) else row).get(config.label_field)
        if not isinstance(label, str | int) or label_name(label) not in placeholders:
            return False
    return label is not None


class _Labels:
    """Reads the labels of one file and checks that they are valid and consistent."""

    def __init__(
        self,
        config: DatasetConfig,
        labelled: bool | None,
        index: Mapping[str, int] | None,
        report: ReadReport,
        is_unlabelled: bool,
    ) -> None:
        self.config, self.labelled, self.index, self.report = config, labelled, index, report
        dropped = {label_name(name) for name in config.drop_labels or ()} if labelled is not False else set()
        self.dropped = set() if is_unlabelled else dropped
        self.placeholders = {NO_LABEL} - set(index or (NO_LABEL,)) if labelled is None else set()
        self.placeholders |= dropped if is_unlabelled else set()
        report.dropped.update(dict.fromkeys(self.dropped, 0))  # a count of 0 shows a label that never occurs
        self.kind: type | None = None
        self.has_label: bool | None = None  # whether the rows so far have labels
        self.known: dict[Any, str] = {}  # the names of the labels so far, by their values, all of type ``kind``

    def drops(self, row: dict[str, Any]) -> bool:
        """Return whether the row's label is in ``drop_labels``, and count such a row."""
        if not self.dropped or not isinstance(value := row.get(self.config.label_field), str | int):
            return False
        if (name := label_name(value)) not in self.dropped:
            return False
        self.report.dropped[name] += 1
        return True

    def read(self, row: dict[str, Any]) -> str | None:
        """Return the name of the row's label, or None if it has none.

        Raises:
            ValueError: for a label that is missing, unknown, or of another type than those before it.
        """
        if self.labelled is False:
            return None
        value = row.get(self.config.label_field)
        if type(value) is self.kind and value in self.known:
            return self.known[value]
        value = _label(row, self.config.label_field)
        name = None if value is None else label_name(value)
        if self.labelled and name is None:
            raise ValueError(_missing(row, "label_field", self.config))
        if name in self.placeholders:
            placeholder, name = name, None
        else:
            placeholder = None
        if self.labelled is None and self.has_label not in (None, name is not None):
            raise ValueError(self._mixed(value))
        if name is not None:
            if self.kind not in (None, type(value)):
                raise ValueError(f"mixed label types: {value!r} here, {self.kind.__name__} before" if self.kind else "")
            if self.index is not None and name not in self.index:
                raise ValueError(unknown_label(name, self.index))
            self.kind = type(value)
            self.known[value] = name
        self.has_label = name is not None
        if placeholder is not None:
            self.report.placeholders[placeholder] += 1
        return name

    def _mixed(self, value: str | int | bool | None) -> str:
        """Return the message for a labelled row after unlabelled ones, or the reverse."""
        field = self.config.label_field
        if self.report.placeholders or str(value).strip() == NO_LABEL:
            before = "are labelled" if self.has_label else "are not"
            return (
                f"{field!r} is {value!r}, but the rows before it {before}; {NO_LABEL} means no label only if every row "
                f"has it (dataset.drop_labels=[{NO_LABEL}] drops such rows)"
            )
        here, before = ("no", "one") if self.has_label else ("a", "none")
        return f"has {here} {field!r}, but the rows before it have {before}; all rows or none need a label"


def _missing(row: dict[str, Any], key: str, config: DatasetConfig) -> str:
    field = getattr(config, key)
    if field in row:
        return f"{field!r} is empty"
    used = {config.sentence1_field, config.sentence2_field, config.label_field, config.id_field}
    hint = did_you_mean(field, row.keys() - used)
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
    check_sentence(field, text)
    return text


def check_sentence(field: str, text: str) -> None:
    """Check that a sentence can be tokenized and written: no lone surrogate, no NUL, not only invisible characters.

    Raises:
        ValueError: naming ``field``.
    """
    if not text.isprintable():
        _reject_unwritable(field, text)
        _reject_invisible(field, text)


def _reject_unwritable(field: str, text: str) -> None:
    surrogate = next((letter for letter in text if unicodedata.category(letter) == "Cs"), "")
    if surrogate:  # JSON can escape half of an emoji; tokenizers and UTF-8 files cannot hold it
        raise ValueError(f"{field!r} has half a character, {surrogate!a}; surrogates must come in pairs")
    if "\0" in text:
        raise ValueError(f"{field!r} contains a NUL character (U+0000); remove it")


def _reject_invisible(field: str, text: str) -> None:
    if all(letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc") for letter in text):
        raise ValueError(f"{field!r} is empty: it has only invisible characters, such as {text.strip()[0]!a}")


def _label(row: dict[str, Any], field: str) -> str | int | bool | None:
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str | int):
        raise ValueError(f"{field!r} is {value!r}; it must be a string or a whole number")
    if isinstance(value, str) and not value.isprintable():
        _reject_unwritable(field, value)
    return value
