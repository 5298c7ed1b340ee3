"""Splits: in memory or streamed, in a directory or a zip, in any format, pairs and classes are the same."""

import json
import zipfile

import pytest

from afqmc.data.columns import concatenate
from afqmc.data.config import DatasetConfig, Source
from afqmc.data.loading import Pairs, PairStream, load_dataset
from afqmc.utils.errors import InputError


def rows(count, labels=("0", "1"), start=0):
    return [
        {"sentence1": f"花呗{n}", "sentence2": f"借呗{n}"} | ({"label": labels[n % len(labels)]} if labels else {})
        for n in range(start, start + count)
    ]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows, mark, header=True):
    lines = [rows[0].keys()] if header else []
    return "".join(mark.join(map(str, line)) + "\n" for line in [*lines, *(row.values() for row in rows)])


@pytest.fixture
def dataset(tmp_path):
    """Return a config for train, dev and test files with the given contents."""

    def config(train, dev=None, test=None, suffix="jsonl", **settings):
        contents = {"train": train, "dev": jsonl(rows(4)) if dev is None else dev, "test": test}
        for split, content in contents.items():
            if content is not None:
                (tmp_path / f"{split}.{suffix}").write_text(content, encoding="utf-8")
                settings[f"{split}_file"] = f"{split}.{suffix}"
        return DatasetConfig(path=str(tmp_path), **settings)

    return config


def test_streamed_split(dataset):
    """A streamed split has the same rows as one in memory."""
    config = dataset(jsonl(rows(25, ("b", "a", "c"))), jsonl(rows(6, ("a", "b", "c"))))
    held = load_dataset(config)
    config.streaming = True
    streamed = load_dataset(config)
    assert isinstance(held.train, Pairs)
    assert isinstance(streamed.train, PairStream)
    for _ in range(2):  # each pass reads the file again
        chunks = list(streamed.train.chunks(10))
        assert [len(chunk) for chunk in chunks] == [10, 10, 5]
        for column in ("ids", "sentence1", "sentence2", "labels"):
            assert concatenate([getattr(chunk, column) for chunk in chunks]) == getattr(held.train, column)
    assert len(streamed.train) == len(held.train) == 25
    assert streamed.labels == held.labels == ("a", "b", "c")
    assert streamed.label_counts(streamed.train) == held.label_counts(held.train) == [8, 9, 8]
    assert streamed.dev == held.dev


@pytest.mark.parametrize("streaming", [False, True])
def test_sample_limits(dataset, streaming):
    """A limit keeps the first pairs of a split."""
    config = dataset(
        jsonl(rows(20)) + "not read", max_train_samples=7, max_dev_samples=3, max_test_samples=100, streaming=streaming
    )
    result = load_dataset(config)
    assert (len(result.train), len(result.dev), result.test) == (7, 3, None)
    assert [pair for chunk in chunks_of(result.train) for pair in chunk.sentence1] == [f"花呗{n}" for n in range(7)]


def chunks_of(split):
    return split.chunks(3) if isinstance(split, PairStream) else [split]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("suffix", "write", "settings"),
    [
        ("json", jsonl, {}),
        ("csv", lambda result: table(result, ","), {}),
        ("tsv", lambda result: table(result, "\t"), {}),
        ("txt", lambda result: table(result, "\t", header=False), {"columns": ["sentence1", "sentence2", "label"]}),
    ],
)
def test_formats_and_zips_agree(dataset, tmp_path, suffix, write, settings, bom, zipped, streaming):
    """All formats, in a directory or a zip, yield the same splits."""
    config = dataset(bom + write(rows(6)), bom + write(rows(2)), suffix=suffix, streaming=streaming, **settings)
    if zipped:
        config.path = str(tmp_path / "all.zip")
        with zipfile.ZipFile(config.path, "w") as archive:
            for split in ("train", "dev"):
                archive.write(tmp_path / f"{split}.{suffix}", f"deep/{split}.{suffix}")
    result = load_dataset(config)
    (train,) = result.train.chunks(100) if streaming else [result.train]
    assert train.sentence1 == [f"花呗{n}" for n in range(6)]
    assert train.labels == [0, 1, 0, 1, 0, 1]
    assert result.dev.labels == [0, 1]
    assert result.labels == ("0", "1")


@pytest.mark.parametrize("streaming", [False, True])
def test_mixed_label_types(dataset, streaming):
    """Label types may differ between files, but not within one."""
    with pytest.raises(InputError, match="train.jsonl:3: mixed label types: 0 here, str before"):
        load_dataset(dataset(jsonl(rows(2) + rows(1, (0,))), streaming=streaming))
    result = load_dataset(dataset(jsonl(rows(4)), jsonl(rows(4, (0, 1))), streaming=streaming))
    assert result.dev.labels == [0, 1, 0, 1]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_invalid_label(dataset, split, streaming):
    """A label outside the classes is rejected, with its file and line."""
    contents = {name: jsonl(rows(2)) for name in ("train", "dev", "test")}
    contents[split] += "\n" + jsonl(rows(1, ("2",)))
    config = dataset(**contents, labels=["0", "1"], streaming=streaming)
    with pytest.raises(InputError, match=rf"{split}.jsonl:4: label '2' is not one of: 0, 1 \(dataset.labels sets them"):
        load_dataset(config)


def test_unlabelled_test(dataset):
    """An unlabelled test split has no labels."""
    result = load_dataset(dataset(jsonl(rows(4)), test=jsonl([{"id": "t", **rows(1, None)[0]}])))
    assert (result.test.labels, result.test.ids) == (None, ["t"])
    assert result.label_counts(result.test) == [0, 0]
    assert list(result.splits()) == ["train", "dev", "test"]


def test_labelled_test(dataset):
    """A labelled test split has its labels."""
    assert load_dataset(dataset(jsonl(rows(4)), test=jsonl(rows(3)))).test.labels == [0, 1, 0]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_train_and_dev_need_labels(dataset, split, streaming):
    """Train and dev must be labelled."""
    contents = {"train": jsonl(rows(4)), "dev": jsonl(rows(4))} | {split: jsonl(rows(4, None))}
    with pytest.raises(InputError, match=f"{split}.jsonl:1: no 'label'"):
        load_dataset(dataset(**contents, streaming=streaming))


def test_configured_labels(dataset):
    """dataset.labels sets the order of the classes."""
    result = load_dataset(
        dataset(jsonl(rows(4, ("no", "yes"))), jsonl(rows(2, ("no", "yes"))), labels=["yes", "no", "maybe"])
    )
    assert (result.labels, result.train.labels) == (("yes", "no", "maybe"), [1, 0, 1, 0])
    assert result.label_counts(result.train) == [2, 2, 0]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (("1",), {}, r"dataset.labels: two classes or more are needed, found \['1'\]"),
        (("1",), {"labels": ["1"]}, "two classes or more are needed"),
        (("1",), {"labels": ["1", "0", "1"]}, r"dataset.labels=\['1', '0', '1'\]: a name appears twice"),
    ],
)
def test_invalid_classes(dataset, labels, settings, message, streaming):
    """There must be at least two different classes."""
    with pytest.raises(InputError, match=message):
        load_dataset(dataset(jsonl(rows(4, labels)), streaming=streaming, **settings))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_empty_split(dataset, split, streaming):
    """A split without pairs is rejected."""
    contents = {"train": jsonl(rows(4)), "dev": jsonl(rows(4)), "test": jsonl(rows(4))} | {split: "\n"}
    with pytest.raises(InputError, match=rf"{split}.jsonl: holds no pairs"):
        load_dataset(dataset(**contents, labels=["0", "1"], streaming=streaming))


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_split_without_file(dataset, missing):
    """The error for a split without a file names its key."""
    config = dataset(jsonl(rows(4)))
    setattr(config, f"{missing}_file", None)
    with pytest.raises(InputError, match=rf"dataset.{missing}_file: is not set"):
        load_dataset(config)


def test_missing_path_or_file(dataset, tmp_path):
    """A missing path or file is rejected."""
    config = dataset(jsonl(rows(4)))
    config.dev_file = "dev.json"
    with pytest.raises(InputError, match="dev.json: no such file; did you mean 'dev.jsonl'"):
        load_dataset(config)
    config.path = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"dataset.path=.*nowhere: no such directory or zip \(looked at /"):
        load_dataset(config)


def test_absolute_file(dataset, tmp_path_factory):
    """An absolute file may be outside dataset.path."""
    config = dataset(jsonl(rows(4)))
    other = tmp_path_factory.mktemp("other") / "dev.csv"
    other.write_text(table(rows(3), ","), encoding="utf-8")
    config.dev_file = str(other)
    assert len(load_dataset(config).dev) == 3


def test_embedded_sample():
    """The embedded sample has three splits and no other files."""
    config = DatasetConfig(source=Source.sample, train_file="train.json", dev_file="dev.json", test_file="test.json")
    config.max_train_samples = config.max_dev_samples = config.max_test_samples = 5
    result = load_dataset(config)
    assert [len(split) for split in result.splits().values()] == [5, 5, 5]
    config.dev_file = "dv.json"
    with pytest.raises(InputError, match="dataset=sample: has no file 'dv.json'; did you mean 'dev.json'"):
        load_dataset(config)


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_training_file(dataset, streaming):
    """An empty training file is reported as empty, with or without dataset.labels."""
    with pytest.raises(InputError, match="train.jsonl: holds no pairs"):
        load_dataset(dataset("", streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_boolean_labels(dataset, streaming):
    """Boolean labels may be written as in YAML, JSON or pandas."""
    for names in (["False", "True"], ["false", "true"]):  # the first is what OmegaConf makes of [false,true]
        config = dataset(
            jsonl(rows(4, (False, True))), jsonl(rows(2, (False, True))), labels=names, streaming=streaming
        )
        result = load_dataset(config)
        assert (result.labels, result.dev.labels) == (("false", "true"), [0, 1])


def test_label_with_trailing_space(dataset):
    """A trailing space does not make a different class."""
    assert load_dataset(dataset(jsonl(rows(4, ("0", "1 "))), jsonl(rows(2)))).labels == ("0", "1")
