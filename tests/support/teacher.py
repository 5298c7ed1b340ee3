"""Write a teacher: a sweep over two folds of the sample, and a file of unlabelled pairs."""

import itertools
import json

from helpers import train

from afqmc.data.sample import sample_files

FOLDS = ("dataset.num_folds=2", "dataset.max_dev_samples=null", "trainer.max_steps=4", "dataset.test_file=null")


def write_teacher(directory, *overrides):
    """Write ``sweep/`` and ``more.jsonl``: 21 unlabelled pairs, one of them repeated and one in train."""
    for fold in range(2):
        train(directory / "sweep" / str(fold), *FOLDS, f"dataset.fold={fold}", *overrides)
    test, train_rows = (map(json.loads, sample_files()[f"{name}.json"].splitlines()) for name in ("test", "train"))
    unlabelled = [*itertools.islice(test, 19)]
    unlabelled += [unlabelled[0], next(train_rows)]
    lines = [json.dumps({key: row[key] for key in ("sentence1", "sentence2")}) for row in unlabelled]
    (directory / "more.jsonl").write_text("\n".join(lines), encoding="utf-8")
