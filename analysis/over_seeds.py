"""What a few seeds say about a mean: its t interval, equivalence to 0, sign flips, the smallest effect that they find."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from ablate.analysis.paired import CONFIDENCE

Floats = NDArray[np.float64]
SAME = 1e-12  # values that differ by less do not differ
MOST_FLIPPED = 16  # values up to which all sign patterns are tried; beyond it as many are drawn


class Estimate(NamedTuple):
    """A mean with its 95 % interval and its two-sided p against 0."""

    value: float
    low: float
    high: float
    p: float


def estimate(values: Floats) -> Estimate | None:
    """By t over n values (n,); None where there are fewer than two, or all are equal: there is no noise to measure by."""
    if len(values) < 2 or np.ptp(values) < SAME:
        return None
    half = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * _error(values)
    p = 2 * special.stdtr(len(values) - 1, -abs(values.mean()) / _error(values))
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), float(p))


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def holm(p: ArrayLike) -> Floats:
    """p values (n,) adjusted for their number (Holm 1979); a test that could not be made counts, and stays NaN."""
    p = np.asarray(p, dtype=float)
    order, ranks = np.argsort(p), np.arange(len(p))  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate((len(p) - ranks) * p[order]).clip(max=1)
    return adjusted


def equivalent(values: Floats, margin: float) -> float:
    """p of two one-sided t tests that the mean of values (n,) lies within +-margin (Schuirmann 1987); NaN without noise."""
    if estimate(values) is None:
        return np.nan
    return float(
        special.stdtr(len(values) - 1, (abs(values.mean()) - margin) / _error(values))
    )  # the larger of the two


def sign_flip(values: Floats) -> float:
    """Two-sided p that the mean of values (n,) is 0, over all 2^n signs (Fisher 1935): at least 2 / 2^n; NaN without noise."""
    if estimate(values) is None:
        return np.nan
    n = len(values)
    if n <= MOST_FLIPPED:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # (2^n, n)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (2**MOST_FLIPPED, n))
        signs[0] = 1
    return float((np.abs(signs @ values) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()).mean())


def smallest_effect(sd: float, n: int, alpha: float, power: float) -> float:
    """The mean of n values of this SD that a two-sided t test finds with this power, by the noncentral t."""
    t = stats.t.ppf(1 - alpha / 2, n - 1)

    def missing(shift: float) -> float:
        below = np.nan_to_num(stats.nct.cdf(-t, n - 1, shift))  # NaN in scipy where it underflows
        return float(stats.nct.sf(t, n - 1, shift) + below - power)

    return optimize.brentq(missing, 0, 2 * t + 3) * sd / np.sqrt(n)
