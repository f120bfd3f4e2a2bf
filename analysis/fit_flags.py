"""What is doubtful about a fitted law, in sentences."""

from collections.abc import Mapping

import numpy as np

from ablate.analysis.descent import Array, Problem, psi
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.lack_of_fit import LEVEL, LackOfFit
from ablate.analysis.laws import natural


def point_flags(problem: Problem, theta: Array) -> list[str]:
    """What is doubtful about a point estimate.

    Args:
        problem: the law and n points.
        theta: (k,), its best fit.

    Returns:
        Sentences.
    """
    n, k = len(problem.log_y), len(theta)
    flags = []
    if n == k:
        no_noise = "no point is left to estimate the noise from, and no interval is bounded"
        flags.append(f"as many points as parameters ({k}): {no_noise}")
    elif n < 2 * k:
        flags.append(f"too few points ({n} for {k} parameters): the intervals are rough")
    at_low, at_high = problem.on_bounds(theta)
    for name, low, high in zip(problem.law.parameters, at_low, at_high, strict=True):
        if low or high:
            flags.append(f"{name} is on its {'lower' if low else 'upper'} bound")
    residual, gradient = problem.residuals(theta[None])
    pull = psi(residual[0], problem.delta)[:, None] * gradient[0]  # (n, k)
    moving = (np.abs(pull.sum(axis=0)) > 1e-3 * np.abs(pull).sum(axis=0)) & ~at_low & ~at_high
    if moving.any() and np.abs(residual).max() > ROUNDING:
        names = ", ".join(np.array(problem.law.parameters)[moving])
        flags.append(f"the fit failed: it did not converge in {names}")
    return flags


def flat(profiles: Mapping[str, tuple[float, float]]) -> list[str]:
    """The parameters whose profile has an open end.

    Args:
        profiles: by parameter, on the natural scale.

    Returns:
        A sentence for each of them.
    """
    sides = {(True, True): "from below or above", (True, False): "from below", (False, True): "from above"}
    open_ends = {
        name: (low == natural(name, -np.inf), high == np.inf) for name, (low, high) in profiles.items()
    }
    return [
        f"flat profile: the points do not bound {name} {sides[ends]}"
        for name, ends in open_ends.items()
        if any(ends)
    ]


def rejected(test: LackOfFit | None) -> list[str]:
    """What a test says against a law that stands alone.

    Args:
        test: of its lack of fit.

    Returns:
        A sentence if it rejects the law.
    """
    return [f"lack of fit: {test}, as a single test"] if test and test.p < LEVEL else []
