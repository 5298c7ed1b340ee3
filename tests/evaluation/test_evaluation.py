"""Test the logits of a split and the rows of a prediction file."""

import numpy as np
import pytest
import torch
from helpers import prepared

from afqmc.data.folds import connected_groups
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.evaluator import evaluate, predict_logits
from afqmc.evaluation.predictions import add_groups, prediction_rows


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small model and its pairs."""
    return prepared(tmp_path_factory.mktemp("job") / "run")


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_logits_do_not_depend_on_batch(job, batch_size):
    """Each row has the logits that it has alone, in the order of the split."""
    encoder = PairTokenizer(job.tokenizer, 128)
    dev = job.data.dev
    logits = predict_logits(job.model, encoder.encode(dev), encoder, batch_size, torch.device("cpu"))
    alone = []
    job.model.eval()
    for first, second in zip(dev.sentence1, dev.sentence2, strict=True):
        with torch.no_grad():
            alone.append(job.model(**job.tokenizer(first, second, return_tensors="pt"))[0].numpy())
    np.testing.assert_allclose(logits, np.array(alone), rtol=0, atol=1e-6)


def test_training_mode_is_restored(job):
    """Evaluation restores the training mode of the model."""
    encoder = PairTokenizer(job.tokenizer, 128)
    encoded = encoder.encode(job.data.dev)
    for mode in (True, False):
        job.model.train(mode)
        evaluate(job.model, encoded, encoder, 64, torch.device("cpu"))
        assert job.model.training is mode


def test_prediction_rows_order(job):
    """Rows are in the order of the file."""
    logits = np.tile(np.array([[0.0, 2.0], [1.0, 0.0]]), (32, 1))
    rows = prediction_rows(job.data.dev.ids, logits, job.data.dev.labels, ("no", "yes"))
    assert [row["prediction"] for row in rows[:4]] == ["yes", "no", "yes", "no"]
    assert [row["id"] for row in rows] == job.data.dev.ids


def test_groups_name_their_first_pair():
    """Pairs that share a sentence get the id of the first of them; other pairs get no group."""
    rows = [{"id": name} for name in "abcde"]
    add_groups(rows, connected_groups(["x", "y", "z", "p", "q"], ["y", "w", "z2", "x", "r"]))
    assert [row.get("group") for row in rows] == ["a", "a", None, "a", None]
