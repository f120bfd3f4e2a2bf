"""Fits scaling laws to measured losses, with intervals, and flags what the points cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.descent import Problem, descend, huber, objective, polish
from ablate.analysis.fit_flags import flat, point_flags, rejected
from ablate.analysis.intervals import bootstrap, profile
from ablate.analysis.lack_of_fit import LackOfFit, lack_of_fit
from ablate.analysis.law_bounds import starts
from ablate.analysis.laws import LAWS, log_loss, natural, transformed
from ablate.analysis.scaling_problem import Refused, checked, to_problem

Array = NDArray[np.float64]
Interval = tuple[float, float]
FINALISTS = 5  # of the starts; only these are polished


@dataclass(frozen=True)
class Fit:
    """A law fitted to n points. Predictions use the parameters unrounded.

    Attributes:
        law: its name in `laws.LAWS`.
        equation: as published.
        parameters: on the natural scale, named as published.
        intervals: bootstrap percentiles; an end is infinite where the points do not bound the parameter, or 0
            where it cannot be below 0.
        profile: likelihood-ratio intervals, likewise.
        lack_of_fit: see `lack_of_fit`; None where it cannot be tested.
        flags: what is doubtful, in sentences.
        residuals: (n,), log loss - log prediction.
        objective: the sum of their Huber losses.
        huber_delta: see `fit`.
        confidence: of the intervals.
        theta: (k,), the parameters as fitted, coefficients as logarithms.
        samples: (bootstrap samples, k), likewise.
    """

    law: str
    equation: str
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    profile: dict[str, Interval]
    lack_of_fit: LackOfFit | None
    flags: tuple[str, ...]
    residuals: Array
    objective: float
    huber_delta: float
    confidence: float
    theta: Array = field(repr=False)
    samples: Array = field(repr=False)

    def predict(self, predictors: Mapping[str, ArrayLike]) -> Array:
        """The law's losses (m,) at other predictors, each (m,)."""
        return self._curves(self.theta[None], predictors)[0]

    def band(self, predictors: Mapping[str, ArrayLike]) -> tuple[Array, Array]:
        """The pointwise bootstrap interval of the law.

        Args:
            predictors: what the law needs, each (m,).

        Returns:
            Lower and upper ends, each (m,); 0 and infinite without a bootstrap.
        """
        if not len(self.samples):
            m = len(self.predict(predictors))
            return np.zeros(m), np.full(m, np.inf)
        low, high = np.quantile(self._curves(self.samples, predictors), _tails(self.confidence), axis=0)
        return low, high

    def _curves(self, theta: Array, predictors: Mapping[str, ArrayLike]) -> Array:
        """(S, m), the losses by parameters theta (S, k)."""
        return np.exp(log_loss(LAWS[self.law], theta, transformed(checked(self.law, predictors)))[0])


def fit(
    law: str,
    predictors: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    huber_delta: float = 1e-3,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fit:
    """Fits a law as Hoffmann et al. 2022 (arXiv 2203.15556), approach 3.

    The bootstrap intervals are too narrow where huber_delta is far below the noise; those of the profile are
    less so (benchmarks/coverage_scaling.py measures both).

    Args:
        law: a name in `laws.LAWS`.
        predictors: what the law needs of "N", "D", "T", "P" and "quantized", each (n,).
        loss: (n,), an error or a loss, above 0.
        blocks: (n,), the seed of each point, for the test of lack of fit.
        huber_delta: residuals of the log loss beyond it count by their size instead of their square.
        samples: of the bootstrap; 0 leaves it out.
        confidence: of the intervals.
        seed: of the bootstrap.

    Returns:
        The fit. Its `flags` say what is doubtful, also where lack of fit rejects the law.

    Raises:
        Refused: the law cannot be fitted to these points, or an option is out of its range.
    """
    if not (0 < huber_delta < np.inf and 0 < confidence < 1 and samples >= 0):
        got = f"{huber_delta}, {confidence}, {samples}"
        raise Refused(f"`huber_delta > 0`, `0 < confidence < 1` and `samples >= 0` must hold, but got {got}")
    problem = to_problem(law, predictors, loss, huber_delta)
    theta = best(problem)
    k, freedom = len(theta), len(problem.log_y) - len(theta)
    drawn, unbounded = np.empty((0, k)), np.tile((-np.inf, np.inf), (k, 1))
    if freedom and samples:
        drawn = bootstrap(problem, theta, samples, seed)
    percentiles = np.quantile(drawn, _tails(confidence), axis=0).T if len(drawn) else unbounded  # (k, 2)
    profiles = _intervals(problem, profile(problem, theta, confidence) if freedom else unbounded)
    test = lack_of_fit(problem, theta, blocks)
    residual = problem.residuals(theta[None])[0][0]
    named = zip(problem.law.parameters, theta, strict=True)
    return Fit(
        law=law,
        equation=LAWS[law].equation,
        parameters={name: natural(name, value) for name, value in named},
        intervals=_intervals(problem, percentiles),
        profile=profiles,
        lack_of_fit=test,
        flags=(*point_flags(problem, theta), *(flat(profiles) if freedom else []), *rejected(test)),
        residuals=residual,
        objective=float(huber(residual, huber_delta).sum()),
        huber_delta=huber_delta,
        confidence=confidence,
        theta=theta,
        samples=drawn,
    )


def best(problem: Problem) -> Array:
    """The point estimate of a fit, without intervals.

    Args:
        problem: the law and n points.

    Returns:
        (k,), the parameters of the least objective over the grid of starts.
    """
    theta, value = descend(problem, starts(problem.law, problem.x, np.exp(problem.log_y)))
    polished = [polish(problem, theta[i]) for i in np.argsort(value, kind="stable")[:FINALISTS]]
    return min(polished, key=lambda theta: objective(problem, theta)[0])


def _intervals(problem: Problem, ends: Array) -> dict[str, Interval]:
    """Intervals on the natural scale from the ends (k, 2) as fitted; an end on a bound is none."""
    low = np.where(problem.on_bounds(ends[:, 0])[0], -np.inf, ends[:, 0])
    high = np.where(problem.on_bounds(ends[:, 1])[1], np.inf, ends[:, 1])
    pairs = zip(problem.law.parameters, low, high, strict=True)
    return {name: (natural(name, a), natural(name, b)) for name, a, b in pairs}


def _tails(confidence: float) -> Interval:
    return (1 - confidence) / 2, (1 + confidence) / 2
