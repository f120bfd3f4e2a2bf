"""The t interval, of a mean or of any estimate with a standard error."""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)
CONFIDENCE = 0.95
ROUNDING = 1e-12  # values that differ by less count as equal


class Estimate(NamedTuple):
    """A mean, its t interval, and its two-sided p value against 0."""

    value: float
    low: float
    high: float
    p: float


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Half the width of a two-sided t interval, in standard errors.

    Args:
        freedom: degrees of freedom.
        confidence: the probability that the interval covers the truth.

    Returns:
        The quantile of Student's t at (1 + confidence) / 2.
    """
    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def simultaneous(contrasts: int) -> float:
    """The confidence of each of several intervals that together hold with 95 % (Bonferroni; Dunn 1961).

    It holds whatever the correlation of the contrasts.

    Args:
        contrasts: how many intervals there are.

    Returns:
        The probability that one of them covers its truth.
    """
    return 1 - (1 - CONFIDENCE) / max(contrasts, 1)


def t_interval(
    center: Number, error: Number, freedom: float, confidence: float = CONFIDENCE
) -> tuple[Number, Number]:
    """The t interval of estimates.

    Args:
        center: the estimates, a number or (k,).
        error: their standard errors, of the same shape.
        freedom: degrees of freedom.
        confidence: the probability that an interval covers its truth.

    Returns:
        The lower and the upper ends, of the same shape.
    """
    half = t_quantile(freedom, confidence) * error
    return center - half, center + half


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The mean and its t interval.

    Args:
        values: (n,); values that are not finite are left out.
        confidence: the probability that the interval covers the truth.

    Returns:
        Mean, lower end, upper end. The ends are infinite for one value, and all three are NaN for none.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return np.nan, np.nan, np.nan
    mean = float(finite.mean())
    if len(finite) == 1:
        return mean, -np.inf, np.inf
    return mean, *t_interval(mean, _standard_error(finite), len(finite) - 1, confidence)


def estimate(values: Floats, confidence: float = CONFIDENCE) -> Estimate | None:
    """The mean, its t interval and its p value against 0.

    Args:
        values: (n,), finite.
        confidence: the probability that the interval covers the truth.

    Returns:
        The estimate; None where there are fewer than two values or all are equal, because there is no noise
        to estimate an interval from.
    """
    if len(values) < 2 or np.ptp(values) < ROUNDING:
        return None
    t = values.mean() / _standard_error(values)
    return Estimate(*mean_interval(values, confidence), p=float(2 * special.stdtr(len(values) - 1, -abs(t))))


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
