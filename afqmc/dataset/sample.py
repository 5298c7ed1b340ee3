"""The embedded pairs: built from hand-written wordings of consumer-finance questions, in AFQMC's format.

``intents/*.txt`` holds topics (``## slug title``), in each topic neighbouring intents (``# slug meaning``), and under
each intent its wordings, a line each. Two wordings of one intent are a positive pair; a negative pair joins two
intents. Most negatives are hard: of several crossings of neighbouring intents, the one that shares the most characters,
as 怎么提前还款 and 怎么延期还款 do. The rest are drawn at random. Each intent is in one split only.

``python -m afqmc.dataset.sample DIR`` writes the three files to look at.
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
HARD_SHARE = 0.8  # of the negatives: neighbours chosen by what they share
CANDIDATES = 6  # neighbours of a wording drawn for each of these; the one that shares the most is kept
PAIRS = {"train": 12_000, "dev": 1_600, "test": 1_600}
HELD_OUT_PER_TOPIC = 4  # intents of a topic that is held out for dev or for test; the others of it are for train
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
    for file in sorted(resources.files("afqmc.dataset").joinpath("intents").iterdir(), key=lambda item: item.name):
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
    """The intents of each split.

    Topics hold out some for dev and for test in turn: that many of one topic give hard negatives to choose from.
    """
    rng = random.Random(_SEED)
    splits: dict[str, list[Intent]] = {"train": [], "dev": [], "test": []}
    turns = itertools.cycle(("dev", "test"))
    for (_, group), split in zip(itertools.groupby(intents(), key=lambda intent: intent.topic), turns, strict=False):
        members = list(group)
        rng.shuffle(members)
        splits[split] += members[:HELD_OUT_PER_TOPIC]
        splits["train"] += members[HELD_OUT_PER_TOPIC:]
    return splits


def overlap(first: str, second: str) -> float:
    """Jaccard's index of the characters of two sentences."""
    one, other = set(first), set(second)
    return len(one & other) / len(one | other)


def _hard(members: list[Intent], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """``count`` pairs of a wording, each as likely, and the one of ``CANDIDATES`` neighbours that shares the most."""
    drawn = [(wording, intent) for intent in members for wording in intent.wordings]
    neighbours = {
        intent: [
            wording
            for other in members
            if other != intent and other.topic == intent.topic
            for wording in other.wordings
        ]
        for intent in members
    }
    chosen: dict[frozenset[str], tuple[str, str]] = {}
    while len(chosen) < count:
        wording, intent = rng.choice(drawn)
        closest = max(rng.sample(neighbours[intent], CANDIDATES), key=lambda other: overlap(wording, other))
        chosen.setdefault(frozenset((wording, closest)), (wording, closest))
    return list(chosen.values())


def _pairs(members: list[Intent], count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """``count`` distinct pairs with their labels, shuffled."""
    same = [pair for intent in members for pair in itertools.combinations(intent.wordings, 2)]
    crossed = [
        pair for a, b in itertools.combinations(members, 2) for pair in itertools.product(a.wordings, b.wordings)
    ]
    positives = round(count * POSITIVE_SHARE)
    hard = _hard(members, round((count - positives) * HARD_SHARE), rng)
    taken = {frozenset(pair) for pair in hard}
    easy = rng.sample([pair for pair in crossed if frozenset(pair) not in taken], count - positives - len(hard))
    rows = [(*pair, "1") for pair in rng.sample(same, positives)]
    rows += [(*pair, "0") for pair in (*hard, *easy)]
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
        sys.exit("usage: python -m afqmc.dataset.sample DIR")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in sample_files().items():
        (directory / name).write_bytes(content)
        print(directory / name)


if __name__ == "__main__":
    main()
