"""Data quality: duplicates, contradictions and shared pairs are counted, with the lines where they occur."""

from afqmc.data.config import DatasetConfig
from afqmc.data.loading import Dataset, Pairs, PairStream, load_dataset
from afqmc.data.quality import analyze, dataset_warnings, summary_lines
from afqmc.data.stream_changes import StreamTrace

TRAIN = [
    ("a", "b", 0),
    ("a", "b", 0),  # 2: again
    ("b", "a", 1),  # 3: swapped, and contradicts
    ("c", "c", 1),  # 4: twice the same sentence
    ("c", "d", 1),
    ("c", "c", 1),  # 6: again, and the same sentence
    ("x", "y", 0),
]
DEV = [("d", "c", 1), ("y", "x", 0), ("e", "f", 0), ("g", "h", 0)]


def pairs(rows, labelled=True):
    first, second, labels = (list(column) for column in zip(*rows, strict=True))
    return Pairs("file", list(range(len(rows))), first, second, labels if labelled else None)


def dataset(train=TRAIN, dev=DEV, test=None):
    return Dataset("some", ("0", "1"), pairs(train), pairs(dev), None if test is None else pairs(test, labelled=False))


def test_problems_are_counted():
    """Each kind of problem is counted, with its line numbers."""
    result = analyze(dataset()).splits["train"]
    assert (result.pairs, result.label_counts) == (7, [3, 4])
    assert (result.exact_duplicates, result.swapped_duplicates) == (2, 1)
    assert (result.contradictions, result.identical_sentences) == (1, 2)
    assert result.lines == {
        "exact_duplicates": [2, 6],
        "swapped_duplicates": [3],
        "contradictions": [1, 2, 3],
        "identical_sentences": [4, 6],
    }


def test_clean_data_has_no_warnings():
    """A data set without problems yields no warnings."""
    clean = [(f"a{n}", f"b{n}", n % 2) for n in range(10)]
    facts = analyze(dataset(clean[:6], clean[6:8], clean[8:]))
    assert dataset_warnings(facts) == []
    assert facts.splits["dev"].lines == {}


def test_shared_pairs():
    """A pair in two splits counts once, in either order of its sentences."""
    facts = analyze(dataset(test=[("e", "f", 0), ("b", "a", 0), ("a", "b", 0)]))
    assert facts.shared == {("train", "dev"): 2, ("train", "test"): 1, ("dev", "test"): 1}


def test_few_lines_are_shown():
    """A warning about many rows shows only the first few lines."""
    facts = analyze(dataset([("a", "b", 1)] * 20 + [(f"a{n}", f"b{n}", 0) for n in range(20)]))
    assert facts.splits["train"].exact_duplicates == 19
    assert dataset_warnings(facts) == ["train: 19 repeated pairs (lines 2, 3, 4, 5, 6 ... of file)"]


def test_rare_classes():
    """Classes with few training pairs, and classes absent from dev, are reported."""
    many = [(f"a{n}", f"b{n}", n % 2) for n in range(200)]
    train, dev = pairs([*many, ("p", "q", 2)]), pairs([("d", "e", 0), ("e", "f", 1)])
    assert dataset_warnings(analyze(Dataset("some", ("0", "1", "2", "3"), train, dev))) == [
        "train: only 1 of 201 pairs are labelled '2'; a typo? (dataset.labels=[...] sets the classes)",
        "dev: no pair is labelled '2', which train has; no metric shows how well it is learned",
        "train: no pair is labelled '3'; a typo? (dataset.labels=[...] sets the classes)",
    ]


def test_line_numbers(tmp_path):
    """Line numbers are those of the file, counting blank lines."""
    row = '{"sentence1": "a%d", "sentence2": "b", "label": "%d"}\n'
    (tmp_path / "train.jsonl").write_text("\n\n" + row % (1, 0) + "\n" + row % (1, 0) + row % (2, 1))
    (tmp_path / "dev.jsonl").write_text(row % (3, 0) + row % (4, 1))
    data = load_dataset(DatasetConfig(path=str(tmp_path), train_file="train.jsonl", dev_file="dev.jsonl"))
    assert f"train: 1 repeated pairs (line 5 of {tmp_path}/train.jsonl)" in dataset_warnings(analyze(data))


def test_unlabelled_split():
    """An unlabelled split has no contradictions."""
    facts = analyze(dataset(test=[("p", "q", 0), ("p", "q", 1)])).splits["test"]
    assert (facts.contradictions, facts.exact_duplicates, facts.label_counts) == (0, 1, [0, 0])


def test_summary_lines():
    """A run prints the counts and the warnings."""
    data = dataset(test=[("p", "q", 0)])
    assert summary_lines(data, analyze(data)) == [
        "data: some: train 7 (43% '0', 57% '1'); dev 4 (75% '0', 25% '1'); test 1; '1' counts as positive",
        "data: train: 2 repeated pairs (lines 2, 6 of file)",
        "data: train: 1 pairs repeated with the sentences swapped (line 3 of file)",
        "data: train: 1 pairs with contradictory labels (lines 1, 2, 3 of file)",
        "data: train and dev share 2 pairs",
    ]


def test_streamed_split():
    """For a streamed split only the labels are counted."""
    data = Dataset(
        "some", ("0", "1"), PairStream("file", lambda: iter(()), {"0": 0, "1": 1}, [30, 10], StreamTrace()), pairs(DEV)
    )
    facts = analyze(data)
    assert (facts.streamed, facts.shared) == (("train",), {})
    assert (facts.splits["train"].pairs, facts.splits["train"].lines) == (40, {})
    first, *others = summary_lines(data, facts)
    assert "train 40 (75% '0', 25% '1')" in first
    assert "data: train is streamed: not checked for repeated or shared pairs" in others
