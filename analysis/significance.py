"""Tests of a mean over a few seeds: equivalence, sign flips, Holm's adjustment, the detectable effect."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats
from statsmodels.stats.weightstats import DescrStatsW

from ablate.analysis.t_interval import Floats, estimate

MAX_EXACT = 16  # values; up to here every sign pattern is evaluated, beyond it 2^16 random ones


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


def tost(values: Floats, margin: float) -> float:
    """Two one-sided t tests that the mean lies within +-margin (Schuirmann 1987).

    Args:
        values: (n,), finite.
        margin: in the unit of the values, above 0.

    Returns:
        The p value; NaN where `estimate` returns None.
    """
    if estimate(values) is None:
        return np.nan
    return float(DescrStatsW(values).ttost_mean(-margin, margin)[0])


def sign_flip(values: Floats) -> float:
    """The two-sided permutation test that the mean is 0, over the signs of the values (Fisher 1935).

    Args:
        values: (n,), finite.

    Returns:
        The p value, at least 2 / 2^n; NaN where `estimate` returns None.
    """
    if estimate(values) is None:
        return np.nan
    n = len(values)
    if n <= MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # (2^n, n)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (2**MAX_EXACT, n))
        signs[0] = 1
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # equal sums differ by rounding
    return float((np.abs(signs @ values) >= observed).mean())


def minimum_detectable_effect(sd: float, n: int, alpha: float, power: float) -> float:
    """The smallest mean that a two-sided t test detects with a given power, by the noncentral t distribution.

    statsmodels' `TTestPower.solve_power` returns wrong effects for few values (n = 3, alpha = 0.05 / 3: 4.29
    SD instead of 5.67), because its noncentral t underflows to NaN.

    Args:
        sd: standard deviation of the values.
        n: number of values, 2 or more.
        alpha: level of the test.
        power: probability that the test finds the effect.

    Returns:
        The effect, in the unit of the SD.
    """
    t = stats.t.ppf(1 - alpha / 2, n - 1)

    def missing_power(shift: float) -> float:
        below = np.nan_to_num(stats.nct.cdf(-t, n - 1, shift))  # NaN where it underflows
        return float(stats.nct.sf(t, n - 1, shift) + below - power)

    return optimize.brentq(missing_power, 0, 2 * t + 3) * sd / np.sqrt(n)
