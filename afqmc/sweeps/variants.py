"""Variants of a sweep: named lists of overrides, such as one training method each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from afqmc.utils.errors import InputError, did_you_mean

_KEY = "sweep.variant"


def check_variants(variants: Mapping[str, Sequence[str]], keys: Iterable[str]) -> None:
    """Check that variants differ from each other, and do not set a key that the sweep sets too.

    Args:
        variants: Overrides by name.
        keys: Of the other overrides of the sweep.

    Raises:
        InputError: naming the variant.
    """
    others, seen = set(keys), dict[tuple[str, ...], str]()
    for name, overrides in variants.items():
        if (other := seen.setdefault(tuple(sorted(overrides)), name)) != name:
            raise InputError(f"hydra.sweeper.variants.{name}: has the same overrides as {other}")
        for override in overrides:
            if (key := _key(override)) in others:
                raise InputError(f"{key}: is set by the variant {name} of this sweep; remove one of them")


def add_variant(overrides: Sequence[str], variants: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the overrides of a job, with those of the variant that they name.

    Raises:
        InputError: if there is no such variant.
    """
    name = next((text.partition("=")[2] for text in overrides if _key(text) == _KEY), None)
    if name is None:
        return [*overrides]
    if name not in variants:
        raise InputError(f"{_KEY}={name}: this sweep has no such variant{did_you_mean(name, variants)}")
    return [*overrides, *variants[name]]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
