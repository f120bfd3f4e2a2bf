"""Holm's adjustment of p values, and the effect that a t test detects."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ablate.analysis.t_interval import Floats


def holm(p: ArrayLike) -> Floats:
    """p values adjusted for their number (Holm 1979).

    statsmodels' `multipletests` gives the same numbers, but it collects garbage on each call (0.1 s).

    Args:
        p: (n,); NaN for a test that could not be made. Such a test counts in n and stays NaN.

    Returns:
        (n,) the adjusted p values, at most 1.
    """
    p = np.asarray(p, dtype=float)
    order, ranks = np.argsort(p), np.arange(len(p))  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate((len(p) - ranks) * p[order]).clip(max=1)
    return adjusted


def minimum_detectable_effect(error: float, freedom: float, alpha: float, power: float) -> float:
    """The smallest mean that a two-sided t test detects with a given power, by the noncentral t distribution.

    statsmodels' `TTestPower.solve_power` returns wrong effects for few values (n = 3, alpha = 0.05 / 3: 4.29
    SD instead of 5.67), because its noncentral t underflows to NaN.

    Args:
        error: standard error of the mean.
        freedom: its degrees of freedom, 1 or more.
        alpha: level of the test.
        power: probability that the test finds the effect.

    Returns:
        The effect, in the unit of the error.
    """
    return error * _detectable(freedom, alpha, power)


@lru_cache
def _detectable(freedom: float, alpha: float, power: float) -> float:
    """The effect in standard errors."""
    t = stats.t.ppf(1 - alpha / 2, freedom)

    def missing_power(shift: float) -> float:
        below = np.nan_to_num(stats.nct.cdf(-t, freedom, shift))  # NaN where it underflows
        return float(stats.nct.sf(t, freedom, shift) + below - power)

    high = 2 * t + 3
    while missing_power(high) < 0:  # few degrees of freedom and a high power
        high *= 2
    return float(optimize.brentq(missing_power, 0, high))
