"""Flat columns: they have the values of a list, and a pair takes little more memory than its bytes."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afqmc.data.columns import Ints, Texts, combine_hashes, concatenate, select_rows, to_column
from afqmc.data.folds import connected_groups
from afqmc.data.pairs import Pairs, label_texts, sentences_digest, update_digest
from tests.support.helpers import environment

LISTS = st.lists(st.text(st.characters(exclude_categories=()), max_size=5), max_size=20)
PAIRS, MARGIN = 20_000, 100  # pairs of a file, and bytes per pair in addition to the sentences

LOAD = """
import sys, tracemalloc
from afqmc.data.config import DatasetConfig
from afqmc.data.loading import load_dataset
from afqmc.data.quality import analyze
config = DatasetConfig(train_file=sys.argv[1], dev_file=sys.argv[2])
analyze(load_dataset(DatasetConfig(train_file=sys.argv[2], dev_file=sys.argv[2])))  # imports what it needs
tracemalloc.start()
data = load_dataset(config)
analyze(data)
print(tracemalloc.get_traced_memory()[0])
"""


@given(LISTS, st.data())
@settings(deadline=None, max_examples=40)
def test_texts_are_a_list(texts, data):
    """A column of texts has the items, slices, length and order of a list, lone surrogates included."""
    column = Texts.of(texts)
    assert [*column] == texts
    assert column == texts
    assert column == Texts.of([*texts])
    start, stop = data.draw(st.integers(-22, 22)), data.draw(st.integers(-22, 22))
    assert column[start:stop] == texts[start:stop]
    assert column[::-1] == texts[::-1]
    rows = data.draw(st.lists(st.integers(-len(texts), len(texts) - 1), max_size=9)) if texts else []
    assert select_rows(column, np.array(rows, np.int64)) == [texts[row] for row in rows]
    assert concatenate([column, texts]) == texts + texts
    assert column.count_characters().tolist() == [*map(len, texts)]
    equal = column.hashes[:, None] == column.hashes
    assert equal.tolist() == [[one == other for other in texts] for one in texts]


def test_rows_out_of_range():
    """A row that does not exist is an IndexError, as in a list."""
    for column in (Texts.of(["a", "b"]), Ints(np.array([1, 2]))):
        assert column[-1] in ("b", 2)
        for row in (2, -3):
            with pytest.raises(IndexError):
                column[row]


def test_many_rows():
    """Columns are processed in parts; their borders change nothing."""
    texts = [f"花呗{number}" for number in range(140_000)]
    column = Texts.of(texts)
    assert [*column] == texts
    assert column.count_characters().tolist() == [*map(len, texts)]
    assert len(np.unique(column.hashes)) == len(texts)
    rows = np.random.default_rng(0).permutation(len(texts))
    assert column.take(rows) == [texts[row] for row in rows]


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", ""], Texts), ([3, -1], Ints), ([1, "1"], list), ([1, 2**70], list), ([True, False], list), ([], list)],
)
def test_column_of_ids(values, kind):
    """Ids become a flat column if it can hold them; the values stay the same, and so do their types."""
    column = to_column(values)
    assert isinstance(column, kind)
    assert (column == values, [*map(type, column)]) == (True, [*map(type, values)])
    assert concatenate([column, values]) == values + values


@given(LISTS.filter(lambda texts: all(text.isascii() or text.isprintable() for text in texts)))
@settings(deadline=None, max_examples=40)
def test_digest(texts):
    """The digest of a column is that of the list, so that cached tokens and recorded runs stay valid."""
    digest, expected = hashlib.sha256(), hashlib.sha256()
    update_digest(digest, Texts.of(texts))
    expected.update(np.array([len(text) for text in texts], np.int64).tobytes() + "".join(texts).encode())
    assert digest.hexdigest() == expected.hexdigest()


@given(LISTS, st.data())
@settings(deadline=None, max_examples=40)
def test_digest_of_sentences(first, data):
    """The digest is the sum of the sha256 of each pair, its sentences in ascending order."""
    second = data.draw(st.lists(st.sampled_from([*first, "", "花"]), min_size=len(first), max_size=len(first)))
    total = 0
    for one, other in (sorted(pair) for pair in zip(first, second, strict=True)):
        content = f"{len(one)} {one}{other}".encode("utf-8", "surrogatepass")
        total += int(hashlib.sha256(content).hexdigest(), 16)
    for columns in ((first, second), (Texts.of(second), Texts.of(first))):
        pairs = Pairs("x", [*range(len(first))], *columns, None)
        assert sentences_digest(pairs) == f"{total % 2**256:064x}"


def test_label_texts():
    """Labels are hashed as their decimal numbers."""
    assert label_texts([1, -100, 0, 12]) == ["1", "-100", "0", "12"]
    assert label_texts(None) == []


def test_combined_hashes_depend_on_the_order():
    """(a, b) and (b, a) have different hashes."""
    first, second = Texts.of(["a", "b", "a"]).hashes, Texts.of(["b", "a", "b"]).hashes
    one, other, again = combine_hashes(first, second).tolist()
    assert one == again != other


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_connected_groups(pairs):
    """Pairs that share a sentence, also indirectly, are a group; groups are numbered as their sentences occur."""
    first, second = map(list, zip(*pairs, strict=True))
    groups = connected_groups(first, second).tolist()
    expected, members = [], []
    for text in first:
        if not any(text in group for group in members):
            group, size = {text}, 0
            while size < len(group):
                size = len(group)
                group |= {one for pair in pairs if group & {*pair} for one in pair}
            members.append(group)
        expected.append(next(index for index, group in enumerate(members) if text in group))
    assert groups == expected


def test_memory_per_pair(tmp_path):
    """After reading and checking, a pair takes its sentences' bytes and less than two Python strings would."""
    rows = [
        {
            "sentence1": f"蚂蚁借呗等额还款可以换成先息后本吗{number}",
            "sentence2": f"借呗有先息到期还本吗{number}",
            "label": "0",
        }
        for number in range(PAIRS)
    ]
    rows[0]["label"] = "1"
    for name, some in (("train", rows), ("dev", rows[:20])):
        text = "".join(f"{json.dumps(row)}\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    paths = [str(tmp_path / f"{name}.jsonl") for name in ("train", "dev")]
    output = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    sentences = sum(len((row["sentence1"] + row["sentence2"]).encode()) for row in rows)
    assert int(output) - sentences < MARGIN * PAIRS  # two strings and their places in lists take over 100 more
