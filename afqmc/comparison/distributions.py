"""Quantiles and tail probabilities of scipy.stats, without its import, which would take a fifth of a command's time."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from afqmc.results.resampled_metrics import Array


def normal_quantile(p: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return float(special.ndtri(p))


def t_quantile(p: float, df: Any) -> Any:
    """Return the quantile of Student's t distribution; ``df`` may be an array."""
    return special.stdtrit(df, p)


def t_tail(x: Any, df: Any) -> Any:
    """Return the probability of more than ``x`` under Student's t distribution, elementwise."""
    return special.stdtr(df, np.negative(x))


def f_tail(x: Array, df: Array, other_df: float) -> Array:
    """Return the probability of more than ``x`` under the F distribution, elementwise."""
    return np.asarray(special.fdtrc(df, other_df, x))


def chi2_median(df: Array) -> Array:
    """Return the median of the chi-squared distribution, elementwise."""
    return np.asarray(2 * special.gammaincinv(np.asarray(df) / 2, 0.5))
