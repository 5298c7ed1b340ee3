"""Explain the probability of a pair by its words: occlusion, which leaves out one word at a time.

Li, Monroe and Jurafsky, "Understanding Neural Networks through Representation Erasure" (2016, arXiv:1612.08220),
equation 1, measure the importance of a part as the relative change of the score when it is erased. Here the score is
the probability, and the contribution is the plain difference, so that it reads in points of probability::

    contribution(word) = p(pair) - p(pair without the word)

It is exact for every model and engine, because only predictions are compared. It is a property of single words: two
words that say the same can both have 0, since each stands in for the other. The sum has no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from afqmc.data.loading import Pairs

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")  # a character of Chinese, Japanese or Korean; a word; a sign


@dataclass(frozen=True)
class WordContribution:
    """One word of a pair.

    Attributes:
        sentence: 1 or 2.
        start: Index of its first character in the sentence.
        word: Its text.
        contribution: Probability with the word minus that without it, between -1 and 1.
    """

    sentence: int
    start: int
    word: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """The contributions to one probability.

    Attributes:
        label: The label whose probability is explained.
        probability: That of the whole pair.
        words: All words of the first sentence in order, then of the second.
    """

    label: str
    probability: float
    words: tuple[WordContribution, ...]


def words_of(sentence: str) -> list[tuple[int, str]]:
    """Return the words of a sentence, each with the index of its first character.

    A Chinese, Japanese or Korean character is a word, as in the tokenizers of Chinese models. So are a sequence of
    other letters and digits, and a punctuation mark. Tokens within a word are not separated.
    """
    return [(match.start(), match[0]) for match in _WORD.finditer(sentence)]


def without_word(sentence: str, start: int, word: str) -> str:
    """Return the sentence without one word. A space replaces it between ASCII characters, which would form a word."""
    before, after = sentence[:start], sentence[start + len(word) :]
    apart = before[-1:].isascii() and after[:1].isascii()
    return f"{before} {after}" if apart else before + after


def explain_pair(
    probabilities: Callable[[Pairs], np.ndarray], sentence1: str, sentence2: str, labels: tuple[str, ...]
) -> Explanation:
    """Compute the contribution of each word.

    Args:
        probabilities: Maps N pairs to probabilities (N, C). A sentence of one word is empty without it.
        sentence1: The first sentence.
        sentence2: The second sentence.
        labels: The C label names. With two, the second is explained, else the predicted one.
    """
    first, second = words_of(sentence1), words_of(sentence2)
    pairs = [(sentence1, sentence2)]
    pairs += [(without_word(sentence1, *place), sentence2) for place in first]
    pairs += [(sentence1, without_word(sentence2, *place)) for place in second]
    columns = [list(column) for column in zip(*pairs, strict=True)]
    scores = probabilities(Pairs("pair", [*range(len(pairs))], columns[0], columns[1], None))
    label = 1 if len(labels) == 2 else int(scores[0].argmax())
    differences = (scores[0, label] - scores[1:, label]).tolist()
    places = [(1, *place) for place in first] + [(2, *place) for place in second]
    words = (WordContribution(*place, difference) for place, difference in zip(places, differences, strict=True))
    return Explanation(labels[label], float(scores[0, label]), tuple(words))
