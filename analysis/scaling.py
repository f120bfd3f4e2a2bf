"""Fits scaling laws to measured losses, with intervals, and says what the points cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.descent import Problem, descend, huber, objective, polish, psi
from ablate.analysis.intervals import ROUNDING, bootstrap, profile
from ablate.analysis.laws import EXPONENTS, LAWS, Columns, Law, bounds, log_loss, starts, transformed

Array = NDArray[np.float64]
Interval = tuple[float, float]
NEAR = 1e-6  # from a bound


class Refused(ValueError):
    """A law cannot be fitted to these points; the message says why."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to n points. Predictions use the parameters unrounded.

    parameters: natural scale, named as published. intervals: bootstrap percentiles; profile: likelihood-ratio intervals;
    an end is 0 or infinite where the points do not bound the parameter. flags: what is doubtful, in sentences.
    residuals: (n,), log loss - log prediction. objective: the sum of their Huber losses. theta, samples: (k,) and
    (bootstrap samples, k), the parameters as they were fitted, coefficients as logarithms.
    """

    law: str
    equation: str
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    profile: dict[str, Interval]
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
        """The ends (m,) and (m,) of the law's pointwise bootstrap interval; 0 and infinite where there is no bootstrap."""
        if not len(self.samples):
            m = len(self.predict(predictors))
            return np.zeros(m), np.full(m, np.inf)
        low, high = np.quantile(self._curves(self.samples, predictors), _tails(self.confidence), axis=0)
        return low, high

    def _curves(self, theta: Array, predictors: Mapping[str, ArrayLike]) -> Array:
        law = LAWS[self.law]
        return np.exp(log_loss(law, theta, transformed(_checked(self.law, predictors)))[0])


def fit(
    law: str,
    predictors: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    huber_delta: float = 1e-3,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fit:
    """Fits a law of `laws.LAWS` to n losses as Hoffmann et al. 2022 (arXiv 2203.15556), approach 3.

    predictors: what the law needs of "N", "D", "P" and "quantized", each (n,). loss: (n,), an error or a loss, above 0.
    huber_delta: from where residuals of the log loss count by their size instead of their square. samples: of the
    bootstrap; 0 leaves it out. Its intervals are too narrow where huber_delta is far below the noise
    (benchmarks/coverage_scaling.py counts how often); the profile's are less so.
    Raises Refused where the points cannot carry the law; doubts are in the result's `flags`.
    """
    if not (0 < huber_delta < np.inf and 0 < confidence < 1 and samples >= 0):
        got = f"{huber_delta}, {confidence}, {samples}"
        raise Refused(f"`huber_delta > 0`, `0 < confidence < 1` and `samples >= 0` must hold, but got {got}")
    problem = _problem(law, predictors, loss, huber_delta)
    theta = _best(problem)
    k, spare = len(theta), len(problem.log_y) - len(theta)
    drawn = bootstrap(problem, theta, samples, seed) if spare and samples else np.empty((0, k))
    percentiles = (
        np.quantile(drawn, _tails(confidence), axis=0).T if len(drawn) else np.tile((-np.inf, np.inf), (k, 1))
    )
    ends = profile(problem, theta, confidence) if spare else np.tile((-np.inf, np.inf), (k, 1))
    residual = problem.residuals(theta[None])[0][0]
    intervals, profiles = _intervals(problem, percentiles), _intervals(problem, ends)
    return Fit(
        law=law,
        equation=LAWS[law].equation,
        parameters={
            name: float(_natural(name, value))
            for name, value in zip(problem.law.parameters, theta, strict=True)
        },
        intervals=intervals,
        profile=profiles,
        flags=(*_doubts(problem, theta), *(_flat(profiles) if spare else [])),
        residuals=residual,
        objective=float(huber(residual, huber_delta).sum()),
        huber_delta=huber_delta,
        confidence=confidence,
        theta=theta,
        samples=drawn,
    )


def _best(problem: Problem) -> Array:
    """The best parameters (k,) over the grid of starts: all descend together, L-BFGS-B finishes the best five."""
    theta, value = descend(problem, starts(problem.law, problem.x, np.exp(problem.log_y)))
    finished = [polish(problem, theta[i]) for i in np.argsort(value, kind="stable")[:5]]
    return min(finished, key=lambda theta: objective(problem, theta)[0])


def _doubts(problem: Problem, theta: Array) -> list[str]:
    """What the point estimate theta (k,) itself gives reason to doubt."""
    n, k = len(problem.log_y), len(theta)
    flags = []
    if n == k:
        flags.append(
            f"as many points as parameters ({k}): nothing is left to tell noise from, and no interval is bounded"
        )
    elif n < 2 * k:
        flags.append(f"too few points ({n} for {k} parameters): the intervals are rough")
    at_low, at_high = theta <= problem.low + NEAR, theta >= problem.high - NEAR
    for name, low, high in zip(problem.law.parameters, at_low, at_high, strict=True):
        if low or high:
            flags.append(f"{name} is on its {'lower' if low else 'upper'} bound")
    residual, gradient = problem.residuals(theta[None])
    pull = psi(residual[0], problem.delta)[:, None] * gradient[0]  # (n, k)
    unbalanced = (np.abs(pull.sum(axis=0)) > 1e-3 * np.abs(pull).sum(axis=0)) & ~at_low & ~at_high
    if unbalanced.any() and np.abs(residual).max() > ROUNDING:
        names = ", ".join(np.array(problem.law.parameters)[unbalanced])
        flags.append(f"the fit failed: its descent did not come to rest in {names}")
    return flags


def _flat(profiles: Mapping[str, Interval]) -> list[str]:
    sides = {(True, True): "from below or above", (True, False): "from below", (False, True): "from above"}
    open_ends = {name: (low == 0, high == np.inf) for name, (low, high) in profiles.items()}
    return [
        f"flat profile: the points do not bound {name} {sides[ends]}"
        for name, ends in open_ends.items()
        if any(ends)
    ]


def _problem(name: str, predictors: Mapping[str, ArrayLike], loss: ArrayLike, delta: float) -> Problem:
    """The law and its points, checked; raises Refused with the first rule that is broken."""
    given, y = _checked(name, predictors), np.asarray(loss, dtype=float)
    law, (n,) = LAWS[name], given["D"].shape
    if y.shape != (n,):
        raise Refused(f"there must be a loss for each D, but got {n} D and losses of shape {y.shape}")
    if (bad := np.flatnonzero(~(np.isfinite(y) & (y > 0)))).size:
        raise Refused(
            f"losses must be above 0 and finite, but loss[{bad[0]}] is {y[bad[0]]}; leave such points out"
        )
    for predictor, values in given.items():
        if n and np.ptp(values) == 0:
            raise Refused(
                f"the law {name!r} needs more than one {predictor}, but all {n} points have {values[0]:g}"
            )
    settings, k = len(np.unique(np.array(list(given.values())), axis=1).T), len(law.parameters)
    if settings < k:
        raise Refused(
            f"the law {name!r} has {k} parameters and needs as many different {'/'.join(given)}, but got {settings}"
        )
    if np.ptp(np.log(y)) < ROUNDING:
        raise Refused(f"the loss is {y[0]:g} at all {n} points: no law can be told from it")
    x = transformed(given)
    return Problem(law, x, np.log(y), delta, *bounds(law, x, y))


def _checked(name: str, predictors: Mapping[str, ArrayLike]) -> Columns:
    """The predictors that a law reads, as arrays (n,); raises Refused."""
    if name not in LAWS:
        raise Refused(f"unknown law {name!r}; known: {', '.join(LAWS)}")
    law: Law = LAWS[name]
    if missing := [predictor for predictor in law.predictors if predictor not in predictors]:
        raise Refused(
            f"the law {name!r} ({law.equation}) needs {', '.join(law.predictors)}; missing: {', '.join(missing)}"
        )
    given = {predictor: np.asarray(predictors[predictor], dtype=float) for predictor in law.predictors}
    for predictor, values in given.items():
        if values.ndim != 1 or values.shape != given["D"].shape:
            raise Refused(
                f"predictors must be rows of equal length, but {predictor} has shape {values.shape}"
            )
        allowed = np.isin(values, (0, 1)) if predictor == "quantized" else np.isfinite(values) & (values > 0)
        if not allowed.all():
            rule, i = "0 or 1" if predictor == "quantized" else "above 0 and finite", np.argmin(allowed)
            raise Refused(f"{predictor} must be {rule}, but {predictor}[{i}] is {values[i]}")
    return given


def _intervals(problem: Problem, ends: Array) -> dict[str, Interval]:
    """Intervals on the natural scale from the ends (k, 2) as fitted; 0 or infinite from a bound on."""
    low = np.where(ends[:, 0] <= problem.low + NEAR, -np.inf, ends[:, 0])
    high = np.where(ends[:, 1] >= problem.high - NEAR, np.inf, ends[:, 1])
    pairs = zip(problem.law.parameters, low, high, strict=True)
    return {name: (float(_natural(name, a)), float(_natural(name, b))) for name, a, b in pairs}


def _natural(name: str, value: float) -> float:
    """A parameter on its natural scale, where none lies below 0."""
    return max(value, 0.0) if name in EXPONENTS else float(np.exp(value))


def _tails(confidence: float) -> Interval:
    return (1 - confidence) / 2, (1 + confidence) / 2
