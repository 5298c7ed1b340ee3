"""Config fields and their bounds."""

import math
import re
import sys
from dataclasses import dataclass, field

import pytest

from afqmc.config import Config
from afqmc.utils.errors import InputError
from afqmc.utils.fields import check_ranges, config_field, format_bounds


@dataclass
class Inner:
    rate: float | None = config_field(0.5, "share of pairs", ge=0, lt=1)


@dataclass
class Outer:
    size: int = config_field(4, "pairs", gt=0, le=10)
    names: list[str] = config_field(["a"], "no range")
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(("size", "rate"), [(1, 0), (10, 0.999), (4, None)])
def test_closed_bounds_and_none(size, rate):
    """Values on a closed bound and None are valid."""
    check_ranges(Outer(size=size, inner=Inner(rate)))


@pytest.mark.parametrize("size", [0, -1, 11])
def test_out_of_bounds(size):
    """The error names key, value, range and meaning."""
    with pytest.raises(InputError, match=re.escape(f"size={size}: must be > 0 and <= 10 (pairs)")):
        check_ranges(Outer(size=size))


@pytest.mark.parametrize("rate", [1, -0.1, math.nan, math.inf, -math.inf])
def test_nested_field(rate):
    """A nested field is named by its full key."""
    with pytest.raises(InputError, match=re.escape(f"inner.rate={rate}: must be >= 0 and < 1 (share of pairs)")):
        check_ranges(Outer(inner=Inner(rate)))


def test_schema_defaults():
    """All defaults of the schema are within their bounds."""
    check_ranges(Config())


def test_mutable_defaults():
    """Two configs do not share a mutable default."""
    Outer().names.append("b")
    assert Outer().names == ["a"]


def test_unknown_bound():
    """An unknown bound is a programming error."""
    with pytest.raises(AssertionError, match="above"):
        config_field(1, "pairs", above=0)


def test_format_large_bound():
    """A large bound is formatted exactly."""
    assert format_bounds({"ge": 0, "lt": 2**32}) == ">= 0 and < 4294967296"


def test_int_larger_than_float():
    """An int that is too large for a float is refused."""
    with pytest.raises(InputError, match="size="):
        check_ranges(Outer(size=10**400))


@dataclass
class Unbounded:
    count: int = config_field(1, "pairs", ge=1)


def test_int_larger_than_maxsize():
    """An int above sys.maxsize is refused."""
    check_ranges(Unbounded(sys.maxsize))
    with pytest.raises(InputError, match=r"count=10+: must be >= 1 and <= \d{19} \(pairs\)"):
        check_ranges(Unbounded(10**30))
