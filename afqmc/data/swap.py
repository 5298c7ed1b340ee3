"""Train on each pair (a, b) also as (b, a), which doubles the training set (``dataset.swap``)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from afqmc.data.config import Swap
from afqmc.data.pairs import Pairs
from afqmc.utils.errors import InputError

# names of labels that may be wrong for (b, a) where they are right for (a, b)
_DIRECTIONAL = re.compile("entail|contradict|impl(y|ies)|hypernym|hyponym|蕴含|蕴涵|矛盾|上位|下位", re.IGNORECASE)


def check_symmetric(swap: Swap, labels: Sequence[str]) -> None:
    """Check that no label names a relation with a direction, such as entailment.

    Any number of classes is allowed, such as grades of similarity: only names can show that labels have a direction.

    Raises:
        InputError: naming the label.
    """
    directional = [name for name in labels if _DIRECTIONAL.search(name)]
    if swap is not Swap.none and directional:
        raise InputError(
            f"dataset.swap={swap.value}: the label {directional[0]!r} depends on the order of the sentences; allowed "
            "with such labels: none"
        )


def with_swapped(pairs: Pairs) -> Pairs:
    """Return the pairs (a, b), and then each with the same id and label as (b, a)."""
    return pairs.followed_by(pairs.swapped())
