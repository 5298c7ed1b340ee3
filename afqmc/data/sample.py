"""The embedded pairs: built from hand-written wordings of consumer-finance questions, in AFQMC's format.

``intents/*.txt`` holds topics (``## slug title``), in each topic neighbouring intents (``# slug meaning``), and under
each intent its wordings, a line each. Two wordings of one intent are a positive pair; a negative pair joins two
intents, mostly of one topic and mostly alike in their characters, so that it shares words and differs in meaning. Each
intent is in one split only.

``python -m afqmc.data.sample DIR`` writes the three files to look at.
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

POSITIVE_SHARE = 0.31  # of AFQMC's train and dev
HARD_SHARE = 0.6  # of the negatives: both intents in one topic, the wordings alike in characters
ALIKE = 0.2  # what counts as alike, as `overlap` has it
PAIRS = {"train": 24_000, "dev": 1_600, "test": 1_600}
HELD_OUT = 4  # intents of each topic: of every other topic for dev, of the rest for test
_SEED = 20261124


@dataclass(frozen=True)
class Intent:
    """One meaning and the ways customers put it."""

    topic: str
    slug: str
    wordings: tuple[str, ...]


@cache
def intents() -> tuple[Intent, ...]:
    """Every intent, in the order of the files."""
    found: list[Intent] = []
    for file in sorted(resources.files("afqmc.data").joinpath("intents").iterdir(), key=lambda item: item.name):
        topic = ""
        for block in file.read_text(encoding="utf-8").split("\n# "):
            head, *lines = block.splitlines()
            wordings = [line for line in lines if line and not line.startswith("#")]
            if topic and wordings:
                found.append(Intent(topic, head.split()[0], tuple(wordings)))
            for line in block.splitlines():
                if line.startswith("## "):
                    topic = line[3:].split()[0]
    return tuple(found)


def split_intents() -> dict[str, list[Intent]]:
    """The intents of each split: some of every topic held out, by turns for dev and for test, the rest for train.

    Those held out together are neighbours: one drawn at random, and those of its topic that read most like it.
    """
    rng = random.Random(_SEED)
    splits: dict[str, list[Intent]] = {"train": [], "dev": [], "test": []}
    for number, (_, group) in enumerate(itertools.groupby(intents(), key=lambda intent: intent.topic)):
        members = list(group)
        drawn = "".join(rng.choice(members).wordings)
        members.sort(key=lambda intent: character_overlap(drawn, "".join(intent.wordings)), reverse=True)
        splits["test" if number % 2 else "dev"] += members[:HELD_OUT]
        splits["train"] += members[HELD_OUT:]
    return splits


def character_overlap(first: str, second: str) -> float:
    """The characters two texts share, of all that either has (Jaccard)."""
    return len(set(first) & set(second)) / len(set(first) | set(second))


def _pairs(members: list[Intent], count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """``count`` distinct pairs with their labels, shuffled.

    Hard negatives are drawn from the neighbouring wordings that are alike, easy ones from all the others.
    """
    same = [pair for intent in members for pair in itertools.combinations(intent.wordings, 2)]
    hard: list[tuple[str, str]] = []
    easy: list[tuple[str, str]] = []
    for one, other in itertools.combinations(members, 2):
        for pair in itertools.product(one.wordings, other.wordings):
            (hard if one.topic == other.topic and character_overlap(*pair) >= ALIKE else easy).append(pair)
    positives = round(count * POSITIVE_SHARE)
    hard_negatives = round((count - positives) * HARD_SHARE)
    rows = [(*pair, "1") for pair in rng.sample(same, positives)]
    rows += [(*pair, "0") for pair in rng.sample(hard, hard_negatives)]
    rows += [(*pair, "0") for pair in rng.sample(easy, count - positives - hard_negatives)]
    rng.shuffle(rows)
    return [(b, a, label) if rng.random() < 0.5 else (a, b, label) for a, b, label in rows]


@cache
def sample_files() -> dict[str, bytes]:
    """``train.json``, ``dev.json`` and ``test.json`` as AFQMC has them: JSON lines, test with ids and no labels."""
    files = {}
    for split, members in split_intents().items():
        rng = random.Random(f"{_SEED} {split}")
        rows = []
        for number, (first, second, label) in enumerate(_pairs(members, PAIRS[split], rng)):
            pair = {"sentence1": first, "sentence2": second}
            rows.append({"id": number, **pair} if split == "test" else {**pair, "label": label})
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
