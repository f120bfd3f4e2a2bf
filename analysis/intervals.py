"""How uncertain the parameters of a fitted law are: by bootstrap and by profile likelihood."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ablate.analysis.descent import Problem, descend, objective, psi
from ablate.analysis.t_interval import t_quantile

Array = NDArray[np.float64]
ROUNDING = 1e-7  # log residuals below this come from the arithmetic, not from the data
MAX_STEPS = 60


def bootstrap(problem: Problem, theta: Array, samples: int, seed: int) -> Array:
    """Fits the law again to its own curve plus resampled residuals.

    Residuals are centred, widened by sqrt(n / (n - k)) and drawn with replacement. So points count as
    independent, with the same spread on the log scale.

    Args:
        problem: the law and n points.
        theta: (k,), the best fit.
        samples: number of fits.
        seed: of the random numbers.

    Returns:
        (samples, k).
    """
    residual = problem.residuals(theta[None])[0][0]
    n = len(residual)
    wide = (residual - residual.mean()) * np.sqrt(n / (n - len(theta)))
    drawn = wide[np.random.default_rng(seed).integers(0, n, (samples, n))]
    resampled = replace(problem, log_y=problem.log_y - residual + drawn)  # (samples, n)
    return descend(resampled, np.tile(theta, (samples, 1)))[0]


def profile(problem: Problem, theta: Array, confidence: float) -> Array:
    """The profile-likelihood interval of each parameter.

    It ends where the best fit of all other parameters just becomes significantly worse, or at the parameter's
    bound if that does not happen. All 2 k ends are searched at once: steps double until they go too far, then
    the interval is halved.

    Args:
        problem: the law and n points, n > k.
        theta: (k,), the best fit.
        confidence: of the intervals.

    Returns:
        Lower and upper ends (k, 2).
    """
    k = len(theta)
    best, allowed = objective(problem, theta)[0], _allowed_increase(problem, theta, confidence)
    held = np.tile(np.eye(k, dtype=bool), (2, 1))  # (2k, k): each parameter downwards, then each upwards
    sign = np.repeat((-1.0, 1.0), k)
    low, high, start = np.tile(problem.low, 2), np.tile(problem.high, 2), np.tile(theta, 2)  # each (2k,)
    limit = np.concatenate([problem.low, problem.high])
    nearest, inner, outer = np.tile(theta, (2 * k, 1)), start, np.full(2 * k, np.nan)
    step = np.tile(2 * _standard_errors(problem, theta) + 1e-6, 2)
    for _ in range(MAX_STEPS):
        reach = np.clip(inner + sign * step, low, high)
        value = np.where(np.isnan(outer), reach, (inner + outer) / 2)
        fitted, objectives = descend(problem, np.where(held, value[:, None], nearest), held, steps=60)
        within = objectives - best <= allowed
        nearest = np.where(within[:, None], fitted, nearest)
        inner, outer = np.where(within, value, inner), np.where(within, outer, value)
        step *= 2
        close = np.abs(outer - inner) <= 1e-3 * np.abs(inner - start) + 1e-9
        if (close | (inner == limit)).all():
            break
    return inner.reshape(2, k).T


def _standard_errors(problem: Problem, theta: Array) -> Array:
    """(k,) from the Gauss-Newton approximation of the curvature."""
    residual, gradient = problem.residuals(theta[None])
    covariance = np.linalg.pinv(gradient[0].T @ gradient[0])  # (k, n) @ (n, k)
    return np.sqrt(np.maximum(np.diag(covariance), 0)) * residual.std()  # rounding can make a 0 negative


def _allowed_increase(problem: Problem, theta: Array, confidence: float) -> float:
    """How far the objective may rise above the best before one parameter is significantly worse.

    Robust likelihood-ratio test: 2 (Q - Q_best) mean(psi') / mean(psi^2) against t^2 (Heritier and Ronchetti
    1994; for absolute residuals, Koenker and Bassett 1982), with mean(psi') from a kernel density of the
    residuals.
    """
    residual = problem.residuals(theta[None])[0][0]
    n, freedom = len(residual), len(residual) - len(theta)
    scale = min(1.4826 * np.median(np.abs(residual)), residual.std()) * np.sqrt(n / freedom)
    width = 1.06 * max(scale, ROUNDING) * n**-0.2  # Silverman 1986, eq. 3.28
    above, below = (problem.delta - residual) / width, (-problem.delta - residual) / width
    slope = np.mean(stats.norm.cdf(above) - stats.norm.cdf(below))
    spread = max(np.sum(psi(residual, problem.delta) ** 2) / freedom, ROUNDING**2)
    return t_quantile(freedom, confidence) ** 2 * spread / slope / 2
