"""Where the fit of a scaling law starts, and the bounds that it keeps."""

import numpy as np

from ablate.analysis.laws import EXPONENTS, FLOORS, LARGEST_EXPONENT, SIGNED, Array, Columns, Law, columns

TINY = np.log(1e-6)


def bounds(law: Law, x: Columns, loss: Array) -> tuple[Array, Array]:
    """The bounds of the parameters, far beyond what points can tell apart.

    Args:
        law: the law, with k parameters.
        x: predictors (n,) by name, as from `transformed`.
        loss: (n,).

    Returns:
        The lowest and the highest parameter vector, each (k,).
    """
    sizes = [float(np.abs(value).max()) for name, value in x.items() if name in ("N", "D", "T")]
    reach = LARGEST_EXPONENT * max(sizes)
    least, most = np.log(loss.min()), np.log(loss.max())
    limits = {
        **dict.fromkeys(EXPONENTS, (0.0, LARGEST_EXPONENT)),
        **dict.fromkeys(SIGNED, (-LARGEST_EXPONENT, LARGEST_EXPONENT)),
        **dict.fromkeys((*FLOORS, "delta"), (least + TINY, most)),
        "rho": (TINY, -TINY),
        "gamma": (np.log(0.1), np.log(1000.0)),
    }
    other = (least + TINY - reach, most - TINY + reach)
    low, high = zip(*(limits.get(name, other) for name in law.parameters), strict=True)
    return np.array(low), np.array(high)


def starts(law: Law, x: Columns, loss: Array) -> Array:
    """A grid of parameter vectors to start from.

    Exponents, precisions and floors vary, the two floors of a pair together. The coefficients of the other
    terms are such that each of these terms makes up what the floor leaves of the mean loss.

    Args:
        law: the law, with k parameters.
        x: predictors (n,) by name, as from `transformed`.
        loss: (n,).

    Returns:
        (S, k).
    """
    grid = {
        **dict.fromkeys(EXPONENTS, (0.1, 0.35, 0.7, 1.5)),
        **dict.fromkeys(SIGNED, (-0.7, -0.1, 0.1, 0.7)),
        "E": (0.05, 0.5, 0.9),  # as a share of the least loss
        "gamma": tuple(np.log((0.5, 2.0, 8.0))),
        "rho": tuple(np.log((0.1, 0.5, 1.5))),
    }
    axes = np.meshgrid(*(grid.get(name, (0.0,)) for name in law.parameters), indexing="ij")
    theta = np.stack([axis.ravel() for axis in axes], axis=1)  # (S, k)
    share = theta[:, law.parameters.index("E")].copy() if "E" in law.parameters else np.zeros(len(theta))
    for name, log_factor, _ in law.terms(columns(law, theta), x):
        part = share * loss.min() if name in FLOORS else (1 - share) * np.exp(np.log(loss).mean())
        middle = np.array([row[np.isfinite(row)].mean() for row in np.atleast_2d(log_factor)])
        theta[:, law.parameters.index(name)] = np.log(part) - middle
    return np.clip(theta, *bounds(law, x, loss))
