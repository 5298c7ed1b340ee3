"""Pairs from rows: two sentences and a label each; every complaint names the file and the line."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from afqmc.dataset.cells import with_texts
from afqmc.dataset.config import DatasetConfig, Format, OnBadRow
from afqmc.dataset.files import DataFile
from afqmc.dataset.header import foreign_first_label, has_no_header
from afqmc.dataset.labels import NO_LABEL, label_name, unknown_label
from afqmc.dataset.report import ReadReport
from afqmc.dataset.rows import read_rows
from afqmc.errors import InputError, did_you_mean, in_brief

Complain = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]
_FIRST_ROWS = 20  # rows whose labels are compared with the first row's


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
    index: Mapping[str, int] | None = None,
    complain: Complain | None = None,
    report: ReadReport | None = None,
    keep: Keep | None = None,
) -> Iterator[Pair]:
    """Yield the pairs of a file, in its order, without those whose label is one of ``drop_labels``.

    Args:
        file: What to read.
        config: Names of the fields.
        labelled: True: a label is required; False: labels are not read; None: all rows or none have one.
        index: The known labels; without it, any label is accepted.
        complain: Is called for each invalid row, which is then left out. Without it, the first one is raised, unless
            ``on_bad_row`` is ``skip``. That applies to labelled files only: a prediction needs every row.
        report: Counts what is left out.
        keep: Is called with all columns of each row that becomes a pair.

    Raises:
        InputError: ``file:line: what was found; what is legal``.
    """
    report = ReadReport() if report is None else report
    report.file = file.name
    _refuse_header_row(file, config, index)
    if config.on_bad_row is OnBadRow.skip and labelled is not False:
        complain = report.skip
    is_unlabelled = labelled is None and _is_unlabelled(file, config, index)
    labels, ids = _Labels(config, labelled, index, report, is_unlabelled), _Ids(config, report)
    needed = [config.sentence1_field, config.sentence2_field, config.id_field]
    needed += [] if labelled is False else [config.label_field]
    has_types = _has_types(file)

    def refuse(line: int, reason: str) -> None:
        message = f"{file.name}:{line}: {in_brief(reason)}"
        if complain is None:
            every = "; predictions need every row: dataset.on_bad_row=skip does not apply to them"
            raise InputError(message + every * (config.on_bad_row is OnBadRow.skip))
        complain(message)

    def refuse_unread(line: int, reason: str) -> None:
        report.rows += 1
        refuse(line, reason)

    for line, row in read_rows(file, config, refuse_unread, all_columns=keep is not None):
        report.rows += 1
        try:
            fields = with_texts(row, needed, config.id_field) if has_types else row
            if labels.dropped and labels.drops(fields):
                continue
            first = _sentence(fields, "sentence1_field", config)
            second = _sentence(fields, "sentence2_field", config)
            label = labels.read(fields)
            identity = fields.get(config.id_field)
            if not (ids.has_id and type(identity) is int):  # a call per row would take a tenth of the time
                identity = ids.read(identity, fields)
        except ValueError as error:
            refuse(line, str(error))
            continue
        if keep is not None:
            keep(row)
        yield Pair(id=identity, sentence1=first, sentence2=second, label=label, line=line)
    report.refuse_too_many()


def _has_types(file: DataFile) -> bool:
    """Whether the cells of a file have types of their own; those of other tables are text."""
    return file.format in (Format.xlsx, Format.parquet)


class _Ids:
    """Reads the ids of one file: all rows have one, or none has and the rows are numbered.

    A field other than the default was named by the user, so every row needs it.
    """

    def __init__(self, config: DatasetConfig, report: ReadReport) -> None:
        self.config, self.report = config, report
        self.is_named = config.id_field != DatasetConfig.id_field
        self.has_id: bool | None = True if self.is_named else None  # of the rows so far

    def read(self, value: Any, row: dict[str, Any]) -> int | str:
        """Return the row's id, or its number from 0.

        Args:
            value: What the row has under the id field.
            row: The row.

        Raises:
            ValueError: for an id of another type, and for a row without one where others have one.
        """
        field = self.config.id_field
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise ValueError(f"{field!r} is {value!r}; an id must be a string or a whole number")
        has_id = value is not None and value != ""
        if self.is_named and not has_id:
            default = DatasetConfig.id_field
            raise ValueError(f"{_missing(row, 'id_field', self.config)}; dataset.id_field={default} numbers the rows")
        if self.has_id not in (None, has_id):
            one, other = ("no", "have one") if self.has_id else ("an", "have none")
            raise ValueError(f"has {one} {field!r}, and the rows before it {other}; all rows or none need an id")
        self.has_id = has_id
        return self.report.rows - 1 if value is None or value == "" else value


def _refuse_header_row(file: DataFile, config: DatasetConfig, index: Mapping[str, int] | None) -> None:
    """Check by the labels that a file without a header line has none.

    Raises:
        InputError: for the first row.
    """
    if index is None or not has_no_header(file.format, config):
        return
    first: list[tuple[int, dict[str, Any]]] = []
    with suppress(InputError):  # the reading that follows raises it again
        first += islice(read_rows(file, config, lambda *_: None, all_columns=False), _FIRST_ROWS)
    known = {*index, NO_LABEL, *(label_name(name) for name in config.drop_labels or ())}
    if reason := foreign_first_label([row.get(config.label_field) for _, row in first], known):
        raise InputError(f"{file.name}:{first[0][0]}: {reason}")


def _is_unlabelled(file: DataFile, config: DatasetConfig, index: Mapping[str, int] | None) -> bool:
    """Whether every label of a file is one of ``drop_labels`` or -1, so that no pair of it has a class."""
    dropped = {label_name(name) for name in config.drop_labels or ()}
    if not dropped:
        return False
    none = (dropped | {NO_LABEL}) - set(index or ())
    label = None
    for _, row in read_rows(file, config, lambda *_: None, all_columns=False):
        label = (with_texts(row, [config.label_field], "") if _has_types(file) else row).get(config.label_field)
        if not isinstance(label, str | int) or label_name(label) not in none:
            return False
    return label is not None


class _Labels:
    """Reads the labels of one file and checks that they agree with each other."""

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
        report.dropped.update(dict.fromkeys(self.dropped, 0))  # so that a label that never occurs is known, too
        self.kind: type | None = None
        self.has_label: bool | None = None  # of the rows so far

    def drops(self, row: dict[str, Any]) -> bool:
        """Whether the row's label is one of ``drop_labels``; counts it."""
        if not self.dropped or not isinstance(value := row.get(self.config.label_field), str | int):
            return False
        if (name := label_name(value)) not in self.dropped:
            return False
        self.report.dropped[name] += 1
        return True

    def read(self, row: dict[str, Any]) -> str | None:
        """The name of the row's label, None for no label.

        Raises:
            ValueError: for a label that is missing, unknown, or unlike those before it.
        """
        if self.labelled is False:
            return None
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
        self.has_label = name is not None
        if placeholder is not None:
            self.report.placeholders[placeholder] += 1
        return name

    def _mixed(self, value: str | int | bool | None) -> str:
        """Why a row does not fit to the rows before it, of which all or none had a label."""
        field = self.config.label_field
        if self.report.placeholders or str(value).strip() == NO_LABEL:
            before = "are labelled" if self.has_label else "are not"
            return (
                f"{field!r} is {value!r}, and the rows before it {before}; {NO_LABEL} stands for no label if every row "
                f"has it (dataset.drop_labels=[{NO_LABEL}] leaves such rows out)"
            )
        one, other = ("no", "one") if self.has_label else ("a", "none")
        return f"has {one} {field!r}, the rows before it have {other}; all rows or none"


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


def _label(row: dict[str, Any], field: str) -> str | int | bool | None:
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str | int):
        raise ValueError(f"{field!r} is {value!r}; it must be a string or a whole number")
    if isinstance(value, str) and not value.isprintable():
        _refuse_unwritable(field, value)
    return value
