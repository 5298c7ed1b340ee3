"""The Python API of a finished run: probabilities, explanations, and use from several threads."""

import threading

import numpy as np
import pytest
from helpers import train

import afqmc
from afqmc.data.loading import Pairs
from afqmc.inference.explanation import explain_pair, without_word, words_of
from afqmc.utils.errors import InputError

PAIRS = [("花呗怎么还款", "如何还花呗"), ("借呗 limit 是多少?", "额度"), ("怎么开通花呗", "花呗如何开通")]


@pytest.fixture(scope="module")
def predictor(small_run):
    return afqmc.load(small_run.path)


def test_probabilities_are_those_of_predict(predictor):
    """Each row sums to 1, and its second column is the probability of ``predict``."""
    probabilities = predictor.probabilities(PAIRS)
    assert probabilities.shape == (3, 2)
    assert probabilities.dtype == np.float64
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities[:, 1].tolist() == [row["probability"] for row in predictor.predict(PAIRS)]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("a", " "), "must be two texts that are not empty"),
        (("a", 1), "must be two texts that are not empty"),
        (5, "must be two texts that are not empty"),
        (("\ud83d", "b"), "half a character"),
        (("a", "b\0"), "NUL"),
        (("\u200b", "b"), "only invisible characters"),
    ],
)
def test_invalid_pairs_are_named(predictor, pair, reason):
    """The rules are those for the rows of files."""
    with pytest.raises(InputError, match=rf"pairs\[1\]=.*{reason}"):
        predictor.probabilities([("a", "b"), pair])


def test_words():
    """A Chinese character is a word; other letters and digits form words, which are not divided into tokens."""
    assert [word for _, word in words_of("花呗 App2 的50元？ok!")] == [
        *"花呗",
        "App2",
        "的",
        "50",
        "元",
        "？",
        "ok",
        "!",
    ]
    assert words_of("a 𠀀b") == [(0, "a"), (2, "𠀀"), (3, "b")]
    assert words_of("") == []


def test_removing_a_word_joins_no_others():
    """A space replaces a word between ASCII characters; Chinese characters move together."""
    assert without_word("to-pay", 2, "-") == "to pay"
    assert without_word("怎么还款", 1, "么") == "怎还款"


@pytest.mark.parametrize("pair", PAIRS)
def test_contributions_are_differences_of_predictions(predictor, pair):
    """Each is the probability of the pair minus that of the pair without the word, which is predicted on its own."""
    explanation = predictor.explain(*pair)
    assert explanation.label == predictor.labels[1]
    assert explanation.probability == pytest.approx(predictor.probabilities([pair])[0, 1], abs=1e-5)
    assert [word.word for word in explanation.words] == [word for text in pair for _, word in words_of(text)]
    for word in explanation.words:
        sentences = list(pair)
        assert sentences[word.sentence - 1][word.start :].startswith(word.word)
        sentences[word.sentence - 1] = without_word(sentences[word.sentence - 1], word.start, word.word)
        rest = predictor.probabilities([tuple(sentences)])[0, 1]
        assert word.contribution == pytest.approx(explanation.probability - rest, abs=1e-5)


def test_sentence_of_one_word(predictor):
    """Without its only word, a sentence is empty."""
    first, _ = predictor.explain("花", "呗").words
    logits = predictor.evaluate(Pairs("pairs", [0, 1], ["花", ""], ["呗", "呗"], None)).logits
    whole, rest = predictor.decide(logits).probabilities[:, 1]
    assert first.contribution == pytest.approx(whole - rest, abs=1e-5)


def test_explained_label_of_several():
    """With more than two labels, the probability of the predicted label is explained."""

    def probabilities(pairs):
        return np.array([[0.2, 0.3, 0.5] if "a" in first else [0.2, 0.7, 0.1] for first in pairs.sentence1])

    explanation = explain_pair(probabilities, "a b", "c", ("x", "y", "z"))
    assert (explanation.label, explanation.probability) == ("z", 0.5)
    assert [word.contribution for word in explanation.words] == [0.4, 0.0, 0.0]


def test_threads_share_a_predictor(tmp_path):
    """Eight threads get the answers of a single one, although the model has dropout."""
    predictor = afqmc.load(train(tmp_path / "run", "trainer.max_steps=2").path)
    predictor.model.train()  # each call switches to evaluation and back
    batches = [[(f"花呗{number}", pair[1]) for pair in PAIRS] for number in range(8)]
    expected = [predictor.probabilities(batch) for batch in batches]
    start, results = threading.Barrier(8), {}

    def work(number):
        start.wait()
        for _ in range(5):
            results.setdefault(number, []).append(predictor.probabilities(batches[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        assert all(np.array_equal(result, expected[number]) for result in results[number])
        assert len(results[number]) == 5
