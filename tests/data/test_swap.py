"""Both orders of a pair: in training, in evaluation, and the asymmetry of every run."""

import copy
import json

import numpy as np
import pytest
from equality import differences
from helpers import prepared, rows, small, summary, train
from pairs_loop import PLAIN, plain_losses, shuffled_batches

from afqmc.config import compose
from afqmc.data.config import Swap
from afqmc.data.swap import check_symmetric, with_swapped
from afqmc.evaluation.metrics import asymmetry, mean_as_logits
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.trainer import Trainer
from afqmc.utils.errors import InputError

STEPS = 30


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run that trains on both orders and evaluates the mean of both."""
    return train(tmp_path_factory.mktemp("both") / "run", "dataset.swap=both", "epochs=1")


def test_both_orders_are_in_each_epoch(tmp_path):
    """Each epoch has every pair in both orders, with the same id and label."""
    setup = prepared(tmp_path / "run", "dataset.swap=augment")
    given, pairs = setup.data.train, setup.train.pairs
    assert len(pairs) == 2 * len(given) == 2 * setup.train.report["swap/pairs"]
    trainer = Trainer(setup, [], start_time=0.0)
    ids = [pair_id for batch in trainer.batches.epoch(0) for pair_id in batch.ids]
    assert sorted(ids) == sorted(2 * [*given.ids])
    assert len(trainer.batches) == 24
    assert pairs.sentence1 == [*given.sentence1, *given.sentence2]
    assert pairs.sentence2 == [*given.sentence2, *given.sentence1]
    assert pairs.labels == 2 * [*given.labels]


@pytest.mark.parametrize("method", ["dataset.swap=augment", "dataset.transitive=true"])
def test_losses_equal_plain_loop(tmp_path, method):
    """The losses of 30 steps equal those of a plain loop over the same pairs."""
    setup = prepared(tmp_path / "run", *PLAIN, method, "batch_size=4", f"trainer.max_steps={STEPS}")
    state, given = copy.deepcopy(setup.model.state_dict()), setup.data.train
    pairs = [*zip(given.sentence1, given.sentence2, given.labels, strict=True)]
    if method == "dataset.swap=augment":
        pairs += [(second, first, label) for first, second, label in pairs]
    else:
        new = setup.train.pairs
        pairs += [*zip(new.sentence1, new.sentence2, new.labels, strict=True)][len(given) :]
    batches = shuffled_batches(pairs, setup.config.seed, 4, STEPS)
    Trainer(setup, [MetricsWriter(setup.run_dir, setup.tracker)], start_time=0.0).fit()
    ours = rows(RunDir(setup.run_dir.path), "train/loss")
    np.testing.assert_allclose(ours, plain_losses(state, setup, batches), rtol=0, atol=1e-6)


def test_none_changes_no_bit(small_run, tmp_path):
    """``swap=none`` and ``transitive=false`` give the same run as their absence."""
    run = train(tmp_path / "run", "dataset.swap=none", "dataset.transitive=false", "checkpoint.save_steps=5")
    assert differences(small_run, run) == []


def test_evaluation_is_the_mean_of_both_orders(both):
    """The recorded predictions are the mean probabilities of both orders, and do not depend on the order."""
    predictor = Predictor.load(both.path)
    pairs = predictor.read_pairs(None, labelled=True)
    evaluation = predictor.evaluate(pairs)
    recorded = [json.loads(line) for line in (both.path / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    assert np.array_equal(evaluation.logits, np.array([row["logits"] for row in recorded], np.float32))
    assert {f"dev/{name}": value for name, value in evaluation.metrics.items()}.items() <= summary(both)["best"].items()
    np.testing.assert_allclose(predictor.evaluate(pairs.swapped()).logits, evaluation.logits, atol=1e-6)
    predictor.config.dataset.swap = Swap.none
    single = [predictor.evaluate(split).logits for split in (pairs, pairs.swapped())]
    assert np.array_equal(evaluation.logits, mean_as_logits(single).astype(np.float32))
    assert summary(both)["best"]["dev/asymmetry"] == asymmetry(*single) > 0


def test_python_api_uses_both_orders(both):
    """Predicting sentences gives the recorded logits."""
    predictor = Predictor.load(both.path)
    pairs = predictor.read_pairs(None, labelled=True)
    predicted = predictor.predict(zip(pairs.sentence1, pairs.sentence2, strict=True))
    recorded = [json.loads(line) for line in (both.path / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    assert [row["logits"] for row in predicted] == [row["logits"] for row in recorded]


def test_every_run_reports_asymmetry(small_run):
    """dev/asymmetry is the mean difference of the probability between both orders, for the best weights."""
    predictor = Predictor.load(small_run.path)
    pairs = predictor.read_pairs(None, labelled=True)
    both_orders = [predictor.evaluate(split).logits for split in (pairs, pairs.swapped())]
    first, second = (1 / (1 + np.exp(logits[:, 0] - logits[:, 1].astype(np.float64))) for logits in both_orders)
    assert summary(small_run)["best"]["dev/asymmetry"] == pytest.approx(np.abs(first - second).mean(), abs=1e-9)


def test_asymmetry():
    """It is the total variation distance: with two classes, the difference of the probability of class 1."""
    logits = np.log([[0.2, 0.8], [0.5, 0.5]])
    assert asymmetry(logits, logits) == 0
    assert asymmetry(logits, logits[:, ::-1]) == pytest.approx(0.3)
    assert np.isnan(asymmetry(logits, np.array([[np.nan, 0], [0, 0]])))


@pytest.mark.parametrize("labels", [("0", "1"), ("0", "1", "2"), ("different", "same")])
def test_symmetric_labels(labels):
    check_symmetric(Swap.both, labels)


@pytest.mark.parametrize(
    "labels", [("contradiction", "entailment", "neutral"), ("Not_Entailment", "other"), ("中立", "蕴含")]
)
def test_directional_labels_are_refused(labels):
    """Labels of entailment are refused, except without swapping."""
    check_symmetric(Swap.none, labels)
    with pytest.raises(InputError, match="dataset.swap=augment: the label '.*' depends on the order of the sentences"):
        check_symmetric(Swap.augment, labels)


@pytest.mark.parametrize("method", ["dataset.swap=augment", "dataset.swap=both", "dataset.transitive=true"])
def test_streaming_is_refused(method):
    with pytest.raises(InputError, match=f"{method}: not with dataset.streaming=true"):
        compose([method, "dataset.streaming=true"])


def test_token_budget_counts_added_pairs(tmp_path):
    """With a token budget, the schedule has the steps of the added pairs."""
    setup = prepared(
        tmp_path / "run", "dataset.swap=both", "dataset.batching=token_budget", "dataset.max_tokens_per_batch=256"
    )
    trainer = Trainer(setup, [], start_time=0.0)
    epoch = [*trainer.batches.epoch(1)]
    assert sum(map(len, epoch)) == 2 * len(setup.data.train)
    assert trainer.intervals.epoch == len(epoch)


def test_swapped_pairs_keep_their_ids(pairs):
    doubled = with_swapped(pairs)
    assert doubled.ids == 2 * [*pairs.ids]
    assert doubled.swapped().sentence1 == doubled.sentence2


def test_config_allows_three_values():
    assert small().dataset.swap is Swap.none
    with pytest.raises(InputError, match="dataset.swap=on"):
        small("dataset.swap=on")
