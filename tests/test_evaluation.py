"""Evaluation: sorted batches give each row what it gets alone, in the split's own order."""

import numpy as np
import pytest
import torch
from helpers import prepared

from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.evaluator import evaluate, predict_logits
from afqmc.evaluation.predictions import prediction_rows


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small model and its pairs."""
    return prepared(tmp_path_factory.mktemp("job") / "run")


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_row_gets_what_it_gets_alone_and_unsorted(job, batch_size):
    encoder = PairTokenizer(job.tokenizer, 128)
    dev = job.data.dev
    found = predict_logits(job.model, encoder.encode(dev), encoder, batch_size, torch.device("cpu"))
    alone = []
    job.model.eval()
    for first, second in zip(dev.sentence1, dev.sentence2, strict=True):
        with torch.no_grad():
            alone.append(job.model(**job.tokenizer(first, second, return_tensors="pt"))[0].numpy())
    np.testing.assert_allclose(found, np.array(alone), rtol=0, atol=1e-6)


def test_a_model_is_left_in_the_mode_it_was_in(job):
    encoder = PairTokenizer(job.tokenizer, 128)
    encoded = encoder.encode(job.data.dev)
    for mode in (True, False):
        job.model.train(mode)
        evaluate(job.model, encoded, encoder, 64, torch.device("cpu"))
        assert job.model.training is mode


def test_rows_of_predictions_follow_the_file(job):
    logits = np.tile(np.array([[0.0, 2.0], [1.0, 0.0]]), (32, 1))
    rows = prediction_rows(job.data.dev.ids, logits, job.data.dev.labels, ("no", "yes"))
    assert [row["prediction"] for row in rows[:4]] == ["yes", "no", "yes", "no"]
    assert [row["id"] for row in rows] == job.data.dev.ids
