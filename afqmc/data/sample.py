"""The embedded sample data set: pairs of hand-written consumer-finance questions in AFQMC's format.

``intents/*.txt`` lists topics (``## slug title``), their intents (``# slug meaning``), and each intent's wordings, one
per line. A positive pair is two wordings of one intent. A negative pair is two wordings of different intents, mostly of
one topic and with similar characters, so that it shares words but not the meaning. Each intent is in one split only.

``python -m afqmc.data.sample DIR`` writes the three files for inspection.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

POSITIVE_SHARE = 0.31  # as in AFQMC's train and dev
HARD_SHARE = 0.6  # of the negatives; hard ones are wordings of one topic with similar characters
ALIKE = 0.2  # minimum `character_overlap` of similar wordings
PAIRS = {"train": 24_000, "dev": 1_600, "test": 1_600}
HELD_OUT = 4  # intents per topic, alternately for dev and test
_SEED = 20261124


@dataclass(frozen=True)
class Intent:
    """One meaning and its wordings."""

    topic: str
    slug: str
    wordings: tuple[str, ...]


@cache
def intents() -> tuple[Intent, ...]:
    """Return all intents, in the order of the files."""
    result: list[Intent] = []
    for file in sorted(resources.files("afqmc.data").joinpath("intents").iterdir(), key=lambda item: item.name):
        topic = ""
        for block in file.read_text(encoding="utf-8").split("\n# "):
            head, *lines = block.splitlines()
            wordings = [line for line in lines if line and not line.startswith("#")]
            if topic and wordings:
                result.append(Intent(topic, head.split()[0], tuple(wordings)))
            for line in block.splitlines():
                if line.startswith("## "):
                    topic = line[3:].split()[0]
    return tuple(result)


def split_intents() -> dict[str, list[Intent]]:
    """Return the intents of each split: ``HELD_OUT`` of each topic for dev or test, the rest for train.

    The intents held out of a topic are similar: one is drawn at random, the others are those most like it.
    """
    rng = random.Random(_SEED)
    splits: dict[str, list[Intent]] = {"train": [], "dev": [], "test": []}
    for index, (_, group) in enumerate(itertools.groupby(intents(), key=lambda intent: intent.topic)):
        members = list(group)
        drawn = "".join(rng.choice(members).wordings)
        members.sort(key=lambda intent: character_overlap(drawn, "".join(intent.wordings)), reverse=True)
        splits["test" if index % 2 else "dev"] += members[:HELD_OUT]
        splits["train"] += members[HELD_OUT:]
    return splits


def character_overlap(a: str, b: str) -> float:
    """Return the Jaccard similarity of the sets of characters."""
    in_a, in_b = _characters(a), _characters(b)
    common = len(in_a & in_b)
    return common / (len(in_a) + len(in_b) - common)


@cache
def _characters(text: str) -> frozenset[str]:
    return frozenset(text)


def _pairs(members: list[Intent], count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Return ``count`` distinct pairs with their labels, shuffled, with hard and easy negatives by ``HARD_SHARE``."""
    same = [pair for intent in members for pair in itertools.combinations(intent.wordings, 2)]
    hard: list[tuple[str, str]] = []
    easy: list[tuple[str, str]] = []
    for a, b in itertools.combinations(members, 2):
        pairs = itertools.product(a.wordings, b.wordings)
        if a.topic != b.topic:
            easy.extend(pairs)  # extended at once, since there are millions
            continue
        for pair in pairs:
            (hard if character_overlap(*pair) >= ALIKE else easy).append(pair)
    positives = round(count * POSITIVE_SHARE)
    hard_negatives = round((count - positives) * HARD_SHARE)
    rows = [(*pair, "1") for pair in rng.sample(same, positives)]
    rows += [(*pair, "0") for pair in rng.sample(hard, hard_negatives)]
    rows += [(*pair, "0") for pair in rng.sample(easy, count - positives - hard_negatives)]
    rng.shuffle(rows)
    return [(b, a, label) if rng.random() < 0.5 else (a, b, label) for a, b, label in rows]


@cache
def sample_files() -> dict[str, bytes]:
    """Return the three files as AFQMC has them: JSON lines, and a test file with ids instead of labels."""
    files = {}
    for split, members in split_intents().items():
        rng = random.Random(f"{_SEED} {split}")
        rows = []
        for index, (sentence1, sentence2, label) in enumerate(_pairs(members, PAIRS[split], rng)):
            pair = {"sentence1": sentence1, "sentence2": sentence2}
            rows.append({"id": index, **pair} if split == "test" else {**pair, "label": label})
        files[f"{split}.json"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return files


def main() -> None:
    """Write the files into the directory named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m afqmc.data.sample DIR")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in sample_files().items():
        (directory / name).write_bytes(content)
        print(directory / name)


if __name__ == "__main__":
    main()
