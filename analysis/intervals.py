"""How far a fitted law's parameters may be off: by bootstrap and by profile likelihood."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ablate.analysis.descent import Problem, descend, objective, psi

Array = NDArray[np.float64]
ROUNDING = 1e-7  # log residuals below this are the arithmetic's, not the data's


def bootstrap(problem: Problem, theta: Array, samples: int, seed: int) -> Array:
    """Parameters (samples, k) fitted again, from the best fit theta (k,), to its curve plus residuals drawn anew.

    Residuals are centred, widened by sqrt(n / (n - k)) and drawn with replacement: points count as independent, with
    one spread on the log scale.
    """
    residual = problem.residuals(theta[None])[0][0]
    n = len(residual)
    wide = (residual - residual.mean()) * np.sqrt(n / (n - len(theta)))
    drawn = wide[np.random.default_rng(seed).integers(0, n, (samples, n))]
    again = replace(problem, log_y=problem.log_y - residual + drawn)  # (samples, n)
    return descend(again, np.tile(theta, (samples, 1)))[0]


def profile(problem: Problem, theta: Array, confidence: float) -> Array:
    """The ends (k, 2) of each parameter's interval: where the best fit of all the others is just not significantly worse.

    An end is the parameter's bound where no value up to it is significantly worse. theta: (k,), the best fit.
    """
    k = len(theta)
    best, allowed = objective(problem, theta)[0], _allowed(problem, theta, confidence)
    held = np.tile(np.eye(k, dtype=bool), (2, 1))  # (2k, k): each parameter downwards, then each upwards
    sign = np.repeat((-1.0, 1.0), k)
    limit = np.concatenate([problem.low, problem.high])
    nearest, inner, outer = np.tile(theta, (2 * k, 1)), np.tile(theta, 2), np.full(2 * k, np.nan)
    residual, gradient = problem.residuals(theta[None])
    variances = np.diag(
        np.linalg.pinv(gradient[0].T @ gradient[0])
    )  # (k, n) @ (n, k); 0 may come out as a little less
    errors = np.sqrt(np.maximum(variances, 0)) * residual.std()
    step = np.tile(2 * errors + 1e-6, 2)
    for _ in range(60):  # doubling steps until one goes too far, then halves the interval
        reach = np.clip(inner + sign * step, np.tile(problem.low, 2), np.tile(problem.high, 2))
        value = np.where(np.isnan(outer), reach, (inner + outer) / 2)
        found, worst = descend(problem, np.where(held, value[:, None], nearest), held, steps=60)
        within = worst - best <= allowed
        nearest = np.where(within[:, None], found, nearest)
        inner, outer = np.where(within, value, inner), np.where(within, outer, value)
        step *= 2
        close = np.abs(outer - inner) <= 1e-3 * np.abs(inner - np.tile(theta, 2)) + 1e-9
        if (close | (inner == limit)).all():
            break
    return inner.reshape(2, k).T


def _allowed(problem: Problem, theta: Array, confidence: float) -> float:
    """How much worse than the best objective is not yet significant, for one parameter.

    Robust likelihood-ratio test: 2 (Q - Q_best) mean(psi') / mean(psi^2) against t^2 (Heritier and Ronchetti 1994; for
    absolute residuals, Koenker and Bassett 1982), with mean(psi') from a kernel density of the residuals.
    """
    residual = problem.residuals(theta[None])[0][0]
    n, spare = len(residual), len(residual) - len(theta)
    scale = min(1.4826 * np.median(np.abs(residual)), residual.std()) * np.sqrt(n / spare)
    width = 1.06 * max(scale, ROUNDING) * n**-0.2  # Silverman 1986, eq. 3.28
    slope = np.mean(
        stats.norm.cdf((problem.delta - residual) / width)
        - stats.norm.cdf((-problem.delta - residual) / width)
    )
    spread = max(np.sum(psi(residual, problem.delta) ** 2) / spare, ROUNDING**2)
    return stats.t.ppf((1 + confidence) / 2, spare) ** 2 * spread / slope / 2
