"""Minimises the Huber loss of log residuals: many fits at once by damped Gauss-Newton, the final one by L-BFGS-B.

The objective is the sum over points, not their mean: with a mean, a tolerance stops the descent before it has arrived
(Besiroglu et al. 2024, arXiv 2404.10102, on Hoffmann et al. 2022).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ablate.analysis.laws import Columns, Law, log_loss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A law of k parameters and the n points to fit it to.

    x: transformed predictors, each (n,). log_y: log losses (n,), or (S, n) for S fits at once. delta: Huber's. low and
    high: (k,), the bounds of the parameters.
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
    return float(huber(residual, problem.delta).sum()), -psi(residual[0], problem.delta) @ gradient[
        0
    ]  # (n,) @ (n, k)


def polish(problem: Problem, theta: Array) -> Array:
    """The parameters (k,) of one fit, from a start (k,), by L-BFGS-B with tight tolerances; never worse than the start."""

    def scaled(
        theta: Array,
    ) -> tuple[float, Array]:  # in units of delta^2, or a near-perfect fit looks finished too early
        value, gradient = objective(problem, theta)
        return value / problem.delta**2, gradient / problem.delta**2

    box = optimize.Bounds(problem.low, problem.high)
    tight = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 10000, "maxls": 50, "maxcor": 20}
    found = optimize.minimize(scaled, theta, jac=True, method="L-BFGS-B", bounds=box, options=tight)
    return found.x if found.fun < scaled(theta)[0] else theta


def descend(
    problem: Problem, theta: Array, held: Array | None = None, steps: int = 200
) -> tuple[Array, Array]:
    """S fits at once: the parameters (S, k) and summed objectives (S,) that damped Gauss-Newton reaches from theta (S, k).

    Levenberg-Marquardt with Huber's weights min(1, delta / |r|), kept within the bounds. held: (S, k), true where a
    parameter must keep its value.
    """
    held = np.zeros(theta.shape, dtype=bool) if held is None else held
    damping = np.full(len(theta), 1e-3)
    idle = np.zeros(len(theta), dtype=int)  # steps without progress
    residual, gradient = problem.residuals(theta)
    value = huber(residual, problem.delta).sum(axis=1)
    for _ in range(steps):
        step = _step(problem, theta, residual, gradient, damping, held)
        tried = np.where(held, theta, np.clip(theta + step, problem.low, problem.high))
        tried_residual, tried_gradient = problem.residuals(tried)
        tried_value = huber(tried_residual, problem.delta).sum(axis=1)
        idle = np.where(tried_value < value * (1 - 1e-9), 0, idle + 1)
        better = tried_value < value
        theta = np.where(better[:, None], tried, theta)
        residual = np.where(better[:, None], tried_residual, residual)
        gradient = np.where(better[:, None, None], tried_gradient, gradient)
        value = np.where(better, tried_value, value)
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-15, 1e10)
        if ((idle > 10) | (np.abs(step).max(axis=1) < 1e-12)).all():
            break
    return theta, value


def _step(
    problem: Problem, theta: Array, residual: Array, gradient: Array, damping: Array, held: Array
) -> Array:
    """One damped Gauss-Newton step (S, k); zero where a parameter is held or its bound stands in the way."""
    downhill = np.einsum("snk,sn->sk", gradient, psi(residual, problem.delta))
    stuck = held | ((theta <= problem.low) & (downhill < 0)) | ((theta >= problem.high) & (downhill > 0))
    free = np.where(stuck[:, None], 0.0, gradient)  # (S, n, k)
    weight = problem.delta / np.maximum(np.abs(residual), problem.delta)
    curvature = (free * weight[..., None]).swapaxes(1, 2) @ free  # (S, k, n) @ (S, n, k)
    diagonal = np.einsum("skk->sk", curvature)  # a view
    diagonal += diagonal * damping[:, None] + 1e-30
    diagonal[stuck] = 1.0
    return np.linalg.solve(curvature, np.where(stuck, 0.0, downhill)[..., None])[..., 0].astype(np.float64)
