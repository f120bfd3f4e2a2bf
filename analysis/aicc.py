"""Akaike's information criterion for fits by Huber's loss."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from ablate.analysis.descent import huber
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.scaling import Fit
from ablate.analysis.scaling_problem import Refused

Array = NDArray[np.float64]


def aicc(fit: Fit) -> float:
    """Akaike's criterion with the small-sample correction (Hurvich and Tsai 1989).

    Args:
        fit: of n points. The dispersion of the noise counts as one of the k parameters.

    Returns:
        The criterion; smaller is better.

    Raises:
        Refused: it is not defined, because n <= k + 1.
    """
    n, k = len(fit.residuals), len(fit.theta) + 1
    if n <= k + 1:
        got = f"n={n} points and k={k} parameters, which include the dispersion of the noise"
        raise Refused(f"AICc needs `n > k + 1`, but got {got}")
    residuals = np.maximum(np.abs(fit.residuals), ROUNDING)  # so that exact laws are equally good
    return 2 * k - 2 * log_likelihood(residuals, fit.huber_delta) + 2 * k * (k + 1) / (n - k - 1)


def log_likelihood(residuals: Array, delta: float) -> float:
    """The log likelihood of residuals under the density that Huber's loss maximises.

    The density is exp(-huber(r) / phi) / Z(phi), at the most likely phi.

    Args:
        residuals: (n,).
        delta: Huber's.

    Returns:
        The sum over the residuals.
    """
    n, total = len(residuals), float(huber(residuals, delta).sum())

    def negative(log_phi: float) -> float:
        return n * np.log(normalizer(np.exp(log_phi), delta)) + total / np.exp(log_phi)

    # Z grows at least with the root of phi and at most with phi, so that phi is 1 to 2 times total / n.
    low = np.log(total / n) - 0.01
    bounds = (low, low + np.log(2) + 0.02)
    best = optimize.minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return -float(best.fun)


def normalizer(phi: float, delta: float) -> float:
    """Z(phi): the integral of exp(-huber(r) / phi) over r."""
    core = np.sqrt(2 * np.pi * phi) * special.erf(delta / np.sqrt(2 * phi))
    return float(core + 2 * phi / delta * np.exp(-(delta**2) / (2 * phi)))
