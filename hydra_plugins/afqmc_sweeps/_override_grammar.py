"""Convert Hydra's sweep overrides to a search space: ``a,b``, ``choice``, ``range``, ``interval`` and ``tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from afqmc.sweeps.search_space import Dimension, decimal_step
from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_CONDITION, _TAGS = "if ", ("log", "int")


def parse_dimension(override: Override) -> Dimension:
    """Parse a sweep override such as ``lr=tag(log,interval(1e-6,1e-4))`` or ``batch_size=tag(int,interval(8,64))``.

    ``optimizer.momentum=tag('if optimizer=sgd',interval(0.8,0.99))`` is used only in trials with that optimizer.

    Raises:
        InputError: If a tag or an interval is invalid.
    """
    key, sweep = override.get_key_element(), override.value() if override.is_sweep_override() else None
    assert isinstance(sweep, Sweep)
    tags = {tag: str(tag) for tag in sweep.tags}
    conditions = [text.removeprefix(_CONDITION).partition("=") for text in tags.values() if text.startswith(_CONDITION)]
    flags = sorted(text for text in tags.values() if not text.startswith(_CONDITION))
    if invalid := [text for text in flags if text not in _TAGS]:
        raise InputError(f"{override.input_line}: tag {invalid[0]!r}: allowed: log, int, 'if key=value'")
    if len(conditions) > 1 or any(not equals for _, equals, _ in conditions):
        raise InputError(f"{override.input_line}: only one condition is allowed, as a tag 'if key=value'")
    condition = (conditions[0][0].strip(), conditions[0][2].strip()) if conditions else None
    try:
        return Dimension(key, _distribution(override, sweep, flags), condition)
    except ValueError as error:  # from Optuna, for an empty interval or the logarithm of 0
        raise InputError(f"{override.input_line}: {error}") from error


def _distribution(override: Override, sweep: Sweep, tags: list[str]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        if "int" in tags:
            return IntDistribution(int(sweep.start), int(sweep.end), log="log" in tags)
        return FloatDistribution(float(sweep.start), float(sweep.end), log="log" in tags)
    if tags:
        raise InputError(f"{override.input_line}: tag {tags[0]!r} is only for an interval")
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and sweep.step > 0:
        return _range(sweep)
    assert isinstance(sweep, ChoiceSweep | RangeSweep)
    return CategoricalDistribution(tuple(override.sweep_string_iterator()))


def _range(sweep: RangeSweep) -> BaseDistribution:
    """Return the distribution of a range, which excludes its end."""
    from optuna.distributions import FloatDistribution, IntDistribution

    values: list[Any] = list(sweep.range())
    if not values:
        raise ValueError("an empty range")
    if all(isinstance(value, int) for value in values):
        return IntDistribution(values[0], values[-1], step=int(sweep.step))
    start, step = float(values[0]), float(sweep.step)
    return FloatDistribution(start, decimal_step(start, step, len(values) - 1), step=step)
