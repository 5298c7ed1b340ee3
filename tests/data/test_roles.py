"""Columns: each *_field key needs a different column, and a column that reveals the label is reported."""

import json

import pytest

from afqmc.config import compose
from afqmc.data.config import DatasetConfig
from afqmc.data.label_checks import label_warnings
from afqmc.data.loading import load_dataset
from afqmc.utils.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sentence2_field=label"], "dataset.label_field=label: dataset.sentence2_field is the same column"),
        (["sentence1_field=label"], "dataset.label_field=label: dataset.sentence1_field is the same column"),
        (["sentence2_field=sentence1"], "dataset.sentence2_field=sentence1: dataset.sentence1_field is the same"),
        (["id_field=label"], "dataset.id_field=label: dataset.label_field is the same column"),
        (["sentence1_field=id"], "dataset.id_field=id: dataset.sentence1_field is the same column"),
        (["label_field=''"], "dataset.label_field='': must be the name of a column"),
        (["columns=[sentence1,sentence1,label]"], "'sentence1' appears twice"),
        (["columns=[sentence1,sentence2,labels]"], "has no 'label', which dataset.label_field names; did you mean"),
        (["columns=[a,b,label]"], "has no 'sentence1', which dataset.sentence1_field names"),
        (["columns=[sentence1,sentence2,label]", "id_field=key"], "has no 'key', which dataset.id_field names"),
        (["labels=[no,yes,-]", "drop_labels=[-]"], "dataset.drop_labels: '-' is in dataset.labels too"),
    ],
)
def test_column_used_twice(overrides, message):
    """Two *_field keys with the same column are rejected before data is read."""
    with pytest.raises(InputError, match=message):
        compose(["dataset=files", *(f"dataset.{override}" for override in overrides)])


def test_columns_without_id():
    """dataset.columns need not contain an id."""
    compose(["dataset=files", "dataset.columns=[sentence1,sentence2,label]"])


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path):
    """40 pairs with a class, its name in words, and copies of the first sentence."""
    rows = [
        {"sentence1": f"a{n}", "sentence2": f"b{n}", "label": str(n % 2), "words": ("differ", "same")[n % 2], "c": "c"}
        for n in range(40)
    ]
    rows = [row | {"copy": row["sentence1"]} for row in rows]
    file = write(tmp_path / "all.jsonl", rows)

    def load_with(**fields):
        return load_dataset(DatasetConfig(train_file=file, dev_file=file, **fields))

    return load_with


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sentence2_field": "words"}, "dataset.sentence2_field has 2 different texts in 40 pairs"),
        ({"sentence1_field": "words", "label_field": "label"}, "dataset.sentence1_field has 2 different texts"),
        ({"sentence2_field": "copy"}, "both sentences are the same in every pair"),
    ],
)
def test_column_reveals_label(data, fields, message):
    """A sentence column that reveals the label is reported."""
    assert any(message in text for text in label_warnings(data(**fields)))


def test_no_suspicions(data):
    """Ordinary pairs are not reported."""
    assert label_warnings(data()) == []
    assert label_warnings(data(sentence2_field="c")) == []  # the same text for both classes reveals nothing


def test_label_column_of_texts(data):
    """A label column with a different text per pair is rejected."""
    with pytest.raises(InputError, match="dataset.label_field=copy: 40 different labels in 40 pairs, such as 'a0'"):
        data(label_field="copy")
