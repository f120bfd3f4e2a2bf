"""A model of what each choice adds to an objective: single effects and, where data support them, pairs.

A Gaussian process with the kernel k + r k^2, where k is a sum over the axes: the polynomial kernel of
Rasmussen & Williams 2006, sec. 4.2.2, whose functions are quadratic forms. The likelihood decides how large
effects and pairs are against the noise (Rasmussen & Williams, sec. 5.4.1). With r = 0 the model is additive.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import linalg

from ablate.search.distributions import interpolate, position_of
from ablate.search.parameter_space import Point

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

RANGE_LEVELS = (
    7  # levels that stand for a range; an integer axis with more than one value more is a range, too
)
PAIR_RATIOS = (0.0, 0.03, 0.1, 0.3, 1.0)  # r: variance of the pairs over that of the single effects
SIGNAL_RATIOS = np.geomspace(0.03, 300.0, 14)  # variance of the single effects over that of the noise
N_FITTED = 200  # latest values by which both ratios are chosen
INTERCEPT_VARIANCE = 1e4  # over that of the noise
EPSILON = 1e-12


class Levels:
    """The axes of a space as levels, and points as features in which neighbouring levels are near.

    A range has a few levels. The features of an ordered axis (see `encoding.OrdinalEncoder`) are cumulative:
    the step to the next level is one effect. Any other choice has an effect of its own, and a range a line
    and a parabola. All axes have the same variance.

    Args:
        distributions: Of the axes of encoded points, by name.

    Attributes:
        values: The values of the levels, a list for each axis.
        features: Features of all levels, axis after axis, (levels, p).
        axis_of: The number of each level's axis, (levels,).
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(distributions)
        self.values = [_levels(distribution) for distribution in distributions.values()]
        rows = zip(distributions.values(), self.values, strict=True)
        blocks = [_raw_features(distribution, values) for distribution, values in rows]
        self.axis_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
        self._means = [block.mean(axis=0) for block in blocks]
        variances = [block.var(axis=0).sum() * len(blocks) for block in blocks]
        self._scales = [1 / math.sqrt(variance) if variance else 0.0 for variance in variances]
        scaled = map(self._scaled, range(len(blocks)), blocks)
        self.features = linalg.block_diag(*scaled) if blocks else np.zeros((0, 0))

    def features_of(self, points: Sequence[Point]) -> Array:
        """Features of encoded points, (n, p)."""
        if not points:
            return np.zeros((0, self.features.shape[1]))
        raw = [
            _raw_features(distribution, [point[name] for point in points])
            for name, distribution in self.distributions.items()
        ]
        return np.hstack([np.zeros((len(points), 0)), *map(self._scaled, range(len(raw)), raw)])

    def point(self, chosen: Sequence[int], rng: np.random.Generator) -> Point:
        """The encoded point with a level on each axis; on a range it is drawn from around the level.

        Args:
            chosen: The index of the level on each axis, in the order of the axes.
            rng: Draws the values on ranges.

        Returns:
            The point.
        """
        point = {}
        rows = zip(self.distributions.items(), self.values, chosen, strict=True)
        for (name, distribution), values, level in rows:
            value = values[level]
            point[name] = _drawn_around(distribution, value, rng) if _is_range(distribution) else value
        return point

    def _scaled(self, i: int, block: Array) -> Array:
        return (block - self._means[i]) * self._scales[i]


@dataclass(frozen=True)
class QuadraticModel:
    """A function of a point's features z: constant + single z + z pairs z."""

    constant: float
    single: Array  # (p,)
    pairs: Array  # (p, p)

    def __call__(self, z: Array) -> Array:
        """The function's values (n,) at features (n, p)."""
        return self.constant + z @ self.single + ((z @ self.pairs) * z).sum(axis=1)


class GaussianProcess:
    """The distribution of quadratic models, given noisy values at some points.

    Args:
        z: Features of the points, (n, p).
        values: Of the objective, (n,).
    """

    def __init__(self, z: Array, values: Array) -> None:
        self.z, self.mean, self.scale = z, values.mean(), values.std() or 1.0
        self.y = (values - self.mean) / self.scale
        latest = slice(max(0, len(z) - N_FITTED), None)
        self.r, self.signal, self.noise = _most_likely(z[latest], self.y[latest])
        k = z @ z.T
        k = self.signal * (k + self.r * k**2) + INTERCEPT_VARIANCE + np.eye(len(z))
        self._factor = linalg.cho_factor(k, lower=True, overwrite_a=True, check_finite=False)

    def draw(self, rng: np.random.Generator, temperature: float = 1.0) -> QuadraticModel:
        """A function from the posterior, by Matheron's rule [Wilson et al. 2020, arXiv 2002.09309].

        Args:
            rng: Draws it.
            temperature: Factor of the posterior's standard deviation; 0 gives its mean.

        Returns:
            The function, in the units of the values.
        """
        (n, p), sd = self.z.shape, temperature * math.sqrt(self.noise)
        single: Array = sd * math.sqrt(self.signal) * rng.standard_normal((p,))
        pairs: Array = sd * math.sqrt(self.signal * self.r) * rng.standard_normal((p, p))
        residual = self.y - QuadraticModel(0.0, single, pairs)(self.z) - sd * rng.standard_normal(n)
        weights = linalg.cho_solve(self._factor, residual, check_finite=False)  # (n,)
        single = single + self.signal * self.z.T @ weights
        pairs = pairs + self.signal * self.r * (self.z.T * weights) @ self.z
        constant = INTERCEPT_VARIANCE * weights.sum()
        return QuadraticModel(self.mean + self.scale * constant, self.scale * single, self.scale * pairs)


def fit_linear(z: Array, values: Array) -> QuadraticModel:
    """The least-squares fit without pairs to values without noise; of several, that of the least norm.

    Args:
        z: Features of the points, (n, p).
        values: Of the objective, (n,).

    Returns:
        The model; its pairs are 0.
    """
    p, centre = z.shape[1], z.mean(axis=0)
    single = np.linalg.lstsq(z - centre, values - values.mean(), rcond=1e-6)[0]
    return QuadraticModel(float(values.mean() - centre @ single), single, np.zeros((p, p)))


def _most_likely(z: Array, y: Array) -> tuple[float, float, float]:
    """r, the signal's ratio and the noise's variance of the largest likelihood, the intercept unknown."""
    centre = np.eye(len(z)) - 1 / len(z)
    free, k = max(1, len(z) - 1), z @ z.T
    best = (-math.inf, 0.0, 1.0, 1.0)
    for r in PAIR_RATIOS:
        values, vectors = np.linalg.eigh(centre @ (k + r * k**2) @ centre)
        spread = 1 + SIGNAL_RATIOS[:, None] * np.maximum(values, 0)  # (signals, n), over the noise's variance
        noise = ((vectors.T @ centre @ y) ** 2 / spread).sum(axis=1) / free + EPSILON
        likelihood = -(np.log(spread).sum(axis=1) + free * np.log(noise)) / 2
        i = int(likelihood.argmax())
        best = max(best, (float(likelihood[i]), r, float(SIGNAL_RATIOS[i]), float(noise[i])))
    return best[1:]


def _is_range(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, IntDistribution):
        return distribution.high - distribution.low > RANGE_LEVELS
    return isinstance(distribution, FloatDistribution)


def _levels(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not _is_range(distribution):
        return list(range(int(distribution.low), int(distribution.high) + 1))
    return [interpolate(distribution, position) for position in np.linspace(0, 1, RANGE_LEVELS)]


def _raw_features(distribution: BaseDistribution, values: Sequence[Any]) -> Array:
    """Features of values on one axis before they are centred and scaled, (n, features of the axis)."""
    if isinstance(distribution, CategoricalDistribution):
        return np.array([[value == choice for choice in distribution.choices] for value in values], float)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not _is_range(distribution):
        steps = np.arange(distribution.low, distribution.high)
        return (np.asarray(values)[:, None] > steps).astype(float)
    position = position_of(distribution, np.asarray(values, dtype=float))
    return np.column_stack([position, (2 * position - 1) ** 2])


def _drawn_around(distribution: BaseDistribution, value: float, rng: np.random.Generator) -> float:
    """A value within half a level's distance on a range."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    position = position_of(distribution, value) + rng.uniform(-0.5, 0.5) / (RANGE_LEVELS - 1)
    return interpolate(distribution, min(max(position, 0.0), 1.0))
