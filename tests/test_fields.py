"""Knobs: a field says its range, and a value outside is refused by its flag."""

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
def test_values_on_a_closed_bound_and_none_are_legal(size, rate):
    check_ranges(Outer(size=size, inner=Inner(rate)))


@pytest.mark.parametrize("size", [0, -1, 11])
def test_a_value_outside_is_refused_with_flag_value_range_and_meaning(size):
    with pytest.raises(InputError, match=re.escape(f"size={size}: must be > 0 and <= 10 (pairs)")):
        check_ranges(Outer(size=size))


@pytest.mark.parametrize("rate", [1, -0.1, math.nan, math.inf, -math.inf])
def test_a_nested_field_is_named_by_its_path(rate):
    with pytest.raises(InputError, match=re.escape(f"inner.rate={rate}: must be >= 0 and < 1 (share of pairs)")):
        check_ranges(Outer(inner=Inner(rate)))


def test_every_default_of_the_schema_is_inside_its_own_range():
    check_ranges(Config())


def test_two_configs_do_not_share_a_default():
    Outer().names.append("b")
    assert Outer().names == ["a"]


def test_a_bound_of_another_name_is_a_programming_error():
    with pytest.raises(AssertionError, match="above"):
        config_field(1, "pairs", above=0)


def test_a_large_limit_is_written_out_exactly():
    assert format_bounds({"ge": 0, "lt": 2**32}) == ">= 0 and < 4294967296"


def test_a_whole_number_too_large_for_a_float_is_refused():
    with pytest.raises(InputError, match="size="):
        check_ranges(Outer(size=10**400))


@dataclass
class Unbounded:
    count: int = config_field(1, "pairs", ge=1)


def test_a_whole_number_that_nothing_can_count_to_is_refused():
    check_ranges(Unbounded(sys.maxsize))
    with pytest.raises(InputError, match=r"count=10+: must be >= 1 and <= \d{19} \(pairs\)"):
        check_ranges(Unbounded(10**30))
