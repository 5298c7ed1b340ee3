"""k-fold: every pair is in one fold, folds are similar, and grouped folds share no sentence."""

import os
import random
from collections import Counter

import numpy as np
import pytest
from helpers import small, train
from sklearn.model_selection import StratifiedGroupKFold

from afqmc.config import compose
from afqmc.config.resume import merge_for_resume
from afqmc.data.config import DatasetConfig
from afqmc.data.folds import assign_folds, connected_groups
from afqmc.data.loading import fingerprint, load_dataset
from afqmc.data.quality import analyze, summary_lines
from afqmc.diagnostics.data import data_findings
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none


def pairs(count, sharing=0.3, seed=0, classes=2):
    """Return pairs, some of which share a sentence with an earlier pair."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        shared = number > 0 and rng.random() < sharing
        first = rows[rng.randrange(number)][1] if shared else f"a{number}"
        rows.append((first, f"b{number}", rng.choices(range(classes), range(classes, 0, -1))[0]))
    return rows


def written(path, rows, **settings):
    path.write_text("".join(f"{one},{two},{label}\n" for one, two, label in rows), encoding="utf-8")
    columns = ["sentence1", "sentence2", "label"]
    return DatasetConfig(**{"train_file": str(path), "columns": columns, "num_folds": 5, "fold": 0, **settings})


def every(config):
    """Return the data of each fold."""
    return [load_dataset(DatasetConfig(**{**vars(config), "fold": fold})) for fold in range(config.num_folds)]


@pytest.mark.parametrize("grouped", [True, False])
def test_folds_partition_the_pairs(tmp_path, grouped):
    """Each pair is in dev of one fold and in train of all others."""
    result = every(written(tmp_path / "all.csv", pairs(403), group_by_sentence=grouped))
    held_out = [number for data in result for number in data.dev.ids]
    assert sorted(held_out) == list(range(403))
    for data in result:
        assert sorted([*data.train.ids, *data.dev.ids]) == list(range(403))
        assert data.dev.ids == sorted(data.dev.ids)
        assert all(data.dev.sentence2[row] == f"b{number}" for row, number in enumerate(data.dev.ids))
        assert [data.dev.line(row) - 1 for row in range(len(data.dev))] == data.dev.ids


def test_grouped_folds_share_no_sentence(tmp_path):
    """Grouped folds share no sentence, ungrouped folds do."""
    for grouped in (True, False):
        result = every(written(tmp_path / "all.csv", pairs(400), group_by_sentence=grouped))
        of = [{*data.dev.sentence1, *data.dev.sentence2} for data in result]
        shared = sum(len(one & other) for index, one in enumerate(of) for other in of[index + 1 :])
        assert (shared == 0) is grouped
        assert all((data.folds.leaked_pairs == 0) is grouped for data in result)


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("grouped", [True, False])
def test_folds_are_as_even_as_sklearn(tmp_path, grouped, classes):
    """Folds are at least as even as those of scikit-learn."""
    rows = pairs(600, classes=classes)
    labels = list(map(str, range(classes)))
    data = load_dataset(written(tmp_path / "all.csv", rows, group_by_sentence=grouped, labels=labels))
    labels = np.array([label for *_, label in rows])
    ours = data.folds.label_counts
    assert (ours.sum(axis=0) == np.bincount(labels)).all()
    groups = data.folds.groups
    cut = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    theirs = np.array([np.bincount(labels[held], minlength=classes) for _, held in cut])

    def unevenness(table):
        return np.ptp(table.sum(axis=1)) + np.ptp(table, axis=0).sum()

    assert unevenness(ours) <= unevenness(theirs)
    if not grouped:
        assert np.ptp(ours.sum(axis=1)) <= 1
        assert (np.ptp(ours, axis=0) <= 1).all()


def test_connected_groups():
    """Pairs that are connected through other pairs are in one group."""
    assert connected_groups(["a", "c", "x", "e"], ["b", "d", "y", "x"]).tolist() == [0, 1, 2, 2]
    assert len(set(connected_groups(["a", "b", "c"], ["b", "c", "d"]).tolist())) == 1


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_those_of_one_group_after_another(folds, classes):
    """Groups with equal class counts are assigned together, and get the folds that each would get by itself."""
    rng = np.random.RandomState(folds * classes)
    groups, labels = np.append(rng.permutation(300), rng.randint(0, 40, 500)), rng.randint(0, classes, 800)
    labels[:classes] = range(classes)
    counts = np.zeros((groups.max() + 1, classes), np.int64)
    np.add.at(counts, (groups, labels), 1)
    order = np.random.RandomState(7).permutation(len(counts))
    order = order[np.lexsort((*counts[order].T, -counts[order].sum(axis=1)))]
    fold_counts, expected = np.zeros((folds, classes), np.int64), np.empty(len(counts), np.int64)
    for group in order:
        expected[group] = np.lexsort((fold_counts.sum(axis=1), fold_counts @ counts[group]))[0]
        fold_counts[expected[group]] += counts[group]
    assert assign_folds(groups, labels, folds, 7).tolist() == expected[groups].tolist()


def test_folds_are_reproducible(tmp_path):
    """Folds are the same on every machine and depend only on split_seed."""
    groups, labels = np.arange(12) // 2, np.arange(12) % 3 % 2
    folds = [2, 2, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]  # as computed when this test was written
    assert assign_folds(groups, labels, 3, 0).tolist() == folds
    rows = pairs(200)

    def fold_ids(**settings):
        return load_dataset(written(tmp_path / "all.csv", rows, **settings)).folds.fold_ids.tolist()

    assert fold_ids(split_seed=0) == fold_ids() != fold_ids(split_seed=1)
    assert "seed" not in DatasetConfig.__dataclass_fields__


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.num_folds=5",), "dataset.fold: is not set; with dataset.num_folds=5 it selects"),
        (("dataset.fold=0",), "dataset.fold=0: also set dataset.num_folds"),
        (("dataset.num_folds=5", "dataset.fold=5"), "dataset.fold=5: must be >= 0 and < dataset.num_folds=5"),
        (("dataset.num_folds=1", "dataset.fold=0"), "dataset.num_folds=1: must be >= 2"),
        (("dataset.num_folds=5", "dataset.fold=0", "dataset.streaming=true"), "dataset.num_folds=5: not with"),
    ],
)  # fmt: skip
def test_invalid_fold_settings(overrides, message):
    """Invalid fold settings are rejected before data is read."""
    with pytest.raises(InputError, match="^" + message.replace("?", r"\?")):
        compose(["experiment=quickstart", *overrides])


def test_group_too_large(tmp_path):
    """A group too large for even folds is rejected, with the counts."""
    rows = [("hub", f"h{number}", number % 2) for number in range(60)] + pairs(40)
    with pytest.raises(InputError) as refused:
        load_dataset(written(tmp_path / "all.csv", rows))
    message = str(refused.value)
    assert "dataset.num_folds=5: no even folds of" in message
    assert "their class counts would be 30 + 30, " in message
    assert "connected by shared sentences has 60 of 100 pairs; dataset.group_by_sentence=false splits" in message
    assert "fewer folds" not in message
    assert len(load_dataset(written(tmp_path / "all.csv", rows, group_by_sentence=False)).dev) == 20


def test_class_too_rare(tmp_path):
    """A class with fewer pairs than folds is rejected."""
    rows = [*pairs(50), ("x", "y", 2), ("z", "v", 2)]
    with pytest.raises(
        InputError, match=r"=5: each fold needs a pair of every class, and .*/all.csv has 2 labelled '2'"
    ):
        load_dataset(written(tmp_path / "all.csv", rows, labels=["0", "1", "2"]))
    assert load_dataset(
        written(tmp_path / "all.csv", pairs(50), labels=["0", "1", "2"])
    ).dev  # a class without any pair is allowed


def test_repeated_ids(tmp_path):
    """Repeated ids are rejected, because predictions of folds are combined by id."""
    path = tmp_path / "all.csv"
    path.write_text(
        "id,sentence1,sentence2,label\n" + "".join(f"{n % 9},a{n},b{n},{n % 2}\n" for n in range(10)), "utf-8"
    )
    config = DatasetConfig(train_file=str(path), num_folds=2, fold=0)
    with pytest.raises(InputError, match=r"all.csv:11: the id '0' is in line 2 too; dataset.num_folds needs"):
        load_dataset(config)


def test_dev_file_is_not_read(tmp_path):
    """With folds, dev_file is not read and need not exist."""
    data = load_dataset(written(tmp_path / "all.csv", pairs(60), dev_file="nowhere.csv"))
    assert data.dev.file == f"{tmp_path}/all.csv (fold 0 of 5)"
    with pytest.raises(InputError, match="dataset.dev_file: is not set"):
        load_dataset(written(tmp_path / "all.csv", pairs(60), num_folds=None, fold=None))


def test_sample_limits(tmp_path):
    """max_train_samples limits the file that is split, max_dev_samples limits dev."""
    data = load_dataset(written(tmp_path / "all.csv", pairs(100), max_train_samples=50, max_dev_samples=3))
    assert (len(data.folds.pairs), len(data.dev), len(data.train)) == (50, 3, 40)


def test_fingerprints_of_folds(tmp_path):
    """Folds have different fingerprints, and the same digest of the file."""
    result = every(written(tmp_path / "all.csv", pairs(100)))
    assert len({fingerprint(data) for data in result}) == 5
    assert len({data.folds.digest for data in result}) == 1


def test_fold_line(tmp_path):
    """The run reports the dev fold and the sentences it shares with train."""
    for grouped, message in (
        (True, "it shares no sentence with train"),
        (False, "of its pairs share a sentence with train"),
    ):
        data = load_dataset(written(tmp_path / "all.csv", pairs(200), group_by_sentence=grouped))
        (line,) = (line for line in summary_lines(data, analyze(data)) if "fold 0" in line)
        assert line.startswith(f"data: dev is fold 0 of 5 (from 0) of {tmp_path}/all.csv: ")
        assert message in line


def test_doctor_reports_folds(tmp_path):
    """The doctor reports the sizes and class shares of the folds."""
    data = load_dataset(written(tmp_path / "all.csv", pairs(200)))
    (result,) = (finding for finding in data_findings(data) if "5 folds of" in finding.text)
    assert "40 to 40 pairs; '0' " in result.text
    assert sum(result.facts["sizes"]) == 200
    assert result.facts["largest_group"] == max(Counter(data.folds.groups.tolist()).values())


FOLDS = ("dataset.num_folds=3", "dataset.max_dev_samples=null")


def test_fold_is_evaluated_again(tmp_path):
    """Evaluating a run again uses its dev fold and yields identical metrics."""
    run = train(tmp_path / "run", *FOLDS, "dataset.fold=1", "epochs=1")
    summary = run.read_summary()
    assert summary["folds"]["pairs"] == 96
    again = Predictor.load(run.path)
    pairs = again.read_pairs(None, labelled=True)
    assert (pairs.file, len(pairs)) == ("sample/train.json (fold 1 of 3)", 32)
    evaluation = again.evaluate(pairs)
    figures = nan_to_none(evaluation.metrics | again.cross_fit(pairs).metrics(evaluation.logits))
    recorded = {key.removeprefix("dev/"): value for key, value in summary["best"].items() if "/" in key}
    assert recorded.pop("asymmetry") > 0  # which only a run computes
    assert figures == recorded


def test_resume_with_another_fold():
    """A run cannot be resumed with another fold."""
    saved = small(*FOLDS, "dataset.fold=1")
    with pytest.raises(InputError, match=r"dataset.fold=2: the run has dataset.fold=1, which cannot be changed"):
        merge_for_resume(saved, small(*FOLDS, "dataset.fold=2"))


@pytest.mark.skipif("AFQMC_DATA" not in os.environ, reason="AFQMC_DATA does not name the real data")
def test_folds_of_real_data():
    """AFQMC is split into even folds that share no sentence."""
    config = compose([f"dataset.path={os.environ['AFQMC_DATA']}", "dataset.num_folds=5", "dataset.fold=0"]).dataset
    data = load_dataset(config)
    sizes = data.folds.label_counts.sum(axis=1)
    assert (sizes.min(), sizes.max(), data.folds.largest_group, data.folds.leaked_pairs) == (6866, 6867, 25, 0)
    assert np.ptp(data.folds.label_counts[:, 1] / sizes) < 0.0002
    config.group_by_sentence = False
    assert load_dataset(config).folds.leaked_pairs == 274
