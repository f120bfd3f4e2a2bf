"""Minimises the Huber loss of log residuals: many fits at once by damped Gauss-Newton, then L-BFGS-B.

The objective is the sum over points, not their mean: with a mean, a tolerance stops the descent too early
(Besiroglu et al. 2024, arXiv 2404.10102, on Hoffmann et al. 2022).

Not by scipy's `least_squares(loss="huber")`, which fits one vector at a time: it reaches the same loss, but
1,000 bootstrap samples of a power law with a floor take 1.2 to 2.9 s of CPU instead of 0.1 to 0.5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ablate.analysis.laws import Columns, Law, log_loss

Array = NDArray[np.float64]
NEAR = 1e-6  # a parameter closer to a bound is on it


@dataclass(frozen=True)
class Problem:
    """A law of k parameters and the n points to fit it to.

    Attributes:
        law: the law.
        x: predictors (n,) by name, as from `transformed`.
        log_y: log losses (n,), or (S, n) for S fits at once.
        delta: Huber's: residuals beyond it count by their size instead of their square.
        low: (k,), lower bounds of the parameters.
        high: (k,), upper bounds.
    """

    law: Law
    x: Columns
    log_y: Array
    delta: float
    low: Array
    high: Array

    def residuals(self, theta: Array) -> tuple[Array, Array]:
        """Log residuals (S, n) of the parameters theta (S, k), and the predictions' gradients (S, n, k)."""
        predicted, gradient = log_loss(self.law, theta, self.x)
        return self.log_y - predicted, gradient

    def on_bounds(self, theta: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the parameters theta (k,) are on their lower and on their upper bounds, each (k,)."""
        return theta <= self.low + NEAR, theta >= self.high - NEAR


def huber(residual: Array, delta: float) -> Array:
    """r^2 / 2 up to delta, delta (|r| - delta / 2) beyond (Huber 1964)."""
    size = np.minimum(np.abs(residual), delta)
    return size * (np.abs(residual) - size / 2)


def psi(residual: Array, delta: float) -> Array:
    """The derivative of `huber`."""
    return np.clip(residual, -delta, delta)


def objective(problem: Problem, theta: Array) -> tuple[float, Array]:
    """The summed Huber loss of one parameter vector (k,), and its gradient (k,)."""
    residual, gradient = problem.residuals(theta[None])
    slope = -psi(residual[0], problem.delta) @ gradient[0]  # (n,) @ (n, k)
    return float(huber(residual, problem.delta).sum()), slope


def polish(problem: Problem, theta: Array) -> Array:
    """The best parameters of one fit by L-BFGS-B with tight tolerances, never worse than the start.

    Args:
        problem: with log losses (n,).
        theta: (k,), the start.

    Returns:
        (k,).
    """

    def scaled_objective(theta: Array) -> tuple[float, Array]:
        # in units of delta^2; otherwise a near-perfect fit meets the tolerance too early
        value, gradient = objective(problem, theta)
        return value / problem.delta**2, gradient / problem.delta**2

    box = optimize.Bounds(problem.low, problem.high)
    tight = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 10000, "maxls": 50, "maxcor": 20}
    result = optimize.minimize(
        scaled_objective, theta, jac=True, method="L-BFGS-B", bounds=box, options=tight
    )
    return result.x if result.fun < scaled_objective(theta)[0] else theta


def descend(
    problem: Problem, theta: Array, held: Array | None = None, steps: int = 200
) -> tuple[Array, Array]:
    """S fits at once by damped Gauss-Newton.

    Levenberg-Marquardt with Huber's weights min(1, delta / |r|), kept within the bounds.

    Args:
        problem: with log losses (n,) or (S, n).
        theta: (S, k), the starts.
        held: (S, k), true where a parameter keeps its value.
        steps: at most.

    Returns:
        The parameters (S, k) and the summed objectives (S,).
    """
    held = np.zeros(theta.shape, dtype=bool) if held is None else held
    damping = np.full(len(theta), 1e-3)
    idle = np.zeros(len(theta), dtype=int)  # steps without progress
    residual, gradient = problem.residuals(theta)
    value = huber(residual, problem.delta).sum(axis=1)
    for _ in range(steps):
        step = _step(problem, theta, residual, gradient, damping, held)
        new_theta = np.where(held, theta, np.clip(theta + step, problem.low, problem.high))
        new_residual, new_gradient = problem.residuals(new_theta)
        new_value = huber(new_residual, problem.delta).sum(axis=1)
        idle = np.where(new_value < value * (1 - 1e-9), 0, idle + 1)
        better = new_value < value
        theta = np.where(better[:, None], new_theta, theta)
        residual = np.where(better[:, None], new_residual, residual)
        gradient = np.where(better[:, None, None], new_gradient, gradient)
        value = np.where(better, new_value, value)
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-15, 1e10)
        if ((idle > 10) | (np.abs(step).max(axis=1) < 1e-12)).all():
            break
    return theta, value


def _step(
    problem: Problem, theta: Array, residual: Array, gradient: Array, damping: Array, held: Array
) -> Array:
    """One damped Gauss-Newton step (S, k); zero where a parameter is held or would leave its bounds."""
    downhill = np.einsum("snk,sn->sk", gradient, psi(residual, problem.delta))
    at_bound = ((theta <= problem.low) & (downhill < 0)) | ((theta >= problem.high) & (downhill > 0))
    fixed = held | at_bound
    free = np.where(fixed[:, None], 0.0, gradient)  # (S, n, k)
    weight = problem.delta / np.maximum(np.abs(residual), problem.delta)
    curvature = (free * weight[..., None]).swapaxes(1, 2) @ free  # (S, k, n) @ (S, n, k)
    diagonal = np.einsum("skk->sk", curvature)  # a view
    diagonal += diagonal * damping[:, None] + 1e-30
    diagonal[fixed] = 1.0
    right_side = np.where(fixed, 0.0, downhill)[..., None]  # (S, k, 1)
    return np.linalg.solve(curvature, right_side)[..., 0].astype(np.float64)
