"""A model of what each choice adds to an objective: a sum of effects and, where the values support them, of pairs.

A Gaussian process with the kernel k + r k^2, where k adds up over the axes: the polynomial kernel of Rasmussen & Williams
2006, sec. 4.2.2, whose functions are quadratic forms. The likelihood decides how large effects and pairs are against the
noise (Rasmussen & Williams, sec. 5.4.1), and with r = 0 the model is additive.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import linalg

from ablate.search.parameter_space import Point, at

Array = NDArray[np.float64]

STEPS = 7  # levels of a range; integers with more than one value more are one
PAIRS = (0.0, 0.03, 0.1, 0.3, 1.0)  # r: variance of the pairs over that of the single effects
SIGNAL = np.geomspace(0.03, 300.0, 14)  # variance of the single effects over that of the noise
JUDGED = 200  # latest values by which both are chosen
FLAT = 1e4  # variance of the intercept over that of the noise
LEAST = 1e-12


class Levels:
    """The axes of a space as levels, a range as a few of them, and points as numbers in which neighbours are near.

    An axis with an order (as `optuna_samplers.Code` has it) is coded cumulatively, so that a step to the next level is one
    effect; any other choice has its own, and a range a line and a parabola. All axes have the same variance.
    `features` (levels, p); `of` (levels,): the axis of each.
    """

    def __init__(self, axes: Mapping[str, BaseDistribution]) -> None:
        self.axes = dict(axes)
        self.values = [_levels(axis) for axis in axes.values()]
        blocks = [_raw(axis, values) for axis, values in zip(axes.values(), self.values, strict=True)]
        self.of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
        self._means = [block.mean(axis=0) for block in blocks]
        variances = [block.var(axis=0).sum() * len(blocks) for block in blocks]
        self._scales = [1 / math.sqrt(variance) if variance else 0.0 for variance in variances]
        self.features = (
            linalg.block_diag(*map(self._scaled, range(len(blocks)), blocks)) if blocks else np.zeros((0, 0))
        )

    def code(self, points: Sequence[Point]) -> Array:
        """(n, p)."""
        if not points:
            return np.zeros((0, self.features.shape[1]))
        raw = [_raw(axis, [point[name] for point in points]) for name, axis in self.axes.items()]
        return np.hstack([np.zeros((len(points), 0)), *map(self._scaled, range(len(raw)), raw)])

    def point(self, chosen: Sequence[int], rng: np.random.Generator) -> Point:
        """The point with one level of each axis, in the order of the axes; on a range, anywhere around it."""
        found = {}
        for (name, axis), values, level in zip(self.axes.items(), self.values, chosen, strict=True):
            found[name] = _around(axis, values[level], rng) if _is_range(axis) else values[level]
        return found

    def _scaled(self, i: int, block: Array) -> Array:
        return (block - self._means[i]) * self._scales[i]


@dataclass(frozen=True)
class Form:
    """A sum of effects and pairs of a point's numbers z: constant + single z + z pairs z."""

    constant: float
    single: Array  # (p,)
    pairs: Array  # (p, p)

    def __call__(self, z: Array) -> Array:
        """(n, p) -> (n,)."""
        return self.constant + z @ self.single + ((z @ self.pairs) * z).sum(axis=1)


class Effects:
    """What is known of a form after n noisy values of it: z (n, p), values (n,)."""

    def __init__(self, z: Array, values: Array) -> None:
        self.z, self.mean, self.scale = z, values.mean(), values.std() or 1.0
        self.y = (values - self.mean) / self.scale
        late = slice(max(0, len(z) - JUDGED), None)
        self.r, self.signal, self.noise = _likeliest(z[late], self.y[late])
        k = z @ z.T
        k = self.signal * (k + self.r * k**2) + FLAT + np.eye(len(z))
        self._factor = linalg.cho_factor(k, lower=True, overwrite_a=True, check_finite=False)

    def draw(self, rng: np.random.Generator, heat: float = 1.0) -> Form:
        """A form from the posterior by Matheron's rule [Wilson et al. 2020, arXiv 2002.09309]; with heat 0, its mean."""
        (n, p), sd = self.z.shape, heat * math.sqrt(self.noise)
        single: Array = sd * math.sqrt(self.signal) * rng.standard_normal((p,))
        pairs: Array = sd * math.sqrt(self.signal * self.r) * rng.standard_normal((p, p))
        rest = self.y - Form(0.0, single, pairs)(self.z) - sd * rng.standard_normal(n)
        weights = linalg.cho_solve(self._factor, rest, check_finite=False)  # (n,)
        single = single + self.signal * self.z.T @ weights
        pairs = pairs + self.signal * self.r * (self.z.T * weights) @ self.z
        constant = FLAT * weights.sum()
        return Form(self.mean + self.scale * constant, self.scale * single, self.scale * pairs)


def straight(z: Array, values: Array) -> Form:
    """The form without pairs that is nearest to exact values, the smallest of equal ones. z (n, p), values (n,)."""
    p, centre = z.shape[1], z.mean(axis=0)
    single = np.linalg.lstsq(z - centre, values - values.mean(), rcond=1e-6)[0]
    return Form(float(values.mean() - centre @ single), single, np.zeros((p, p)))


def _likeliest(z: Array, y: Array) -> tuple[float, float, float]:
    """r, signal and variance of the noise with the largest likelihood of what an intercept does not explain."""
    centre = np.eye(len(z)) - 1 / len(z)
    free, k = max(1, len(z) - 1), z @ z.T
    best = (-math.inf, 0.0, 1.0, 1.0)
    for r in PAIRS:
        values, vectors = np.linalg.eigh(centre @ (k + r * k**2) @ centre)
        spread = 1 + SIGNAL[:, None] * np.maximum(values, 0)  # (signals, n), over the variance of the noise
        noise = ((vectors.T @ centre @ y) ** 2 / spread).sum(axis=1) / free + LEAST
        likelihood = -(np.log(spread).sum(axis=1) + free * np.log(noise)) / 2
        i = int(likelihood.argmax())
        best = max(best, (float(likelihood[i]), r, float(SIGNAL[i]), float(noise[i])))
    return best[1:]


def _is_range(axis: BaseDistribution) -> bool:
    return isinstance(axis, FloatDistribution) or (
        isinstance(axis, IntDistribution) and axis.high - axis.low > STEPS
    )


def _levels(axis: BaseDistribution) -> list[Any]:
    if isinstance(axis, CategoricalDistribution):
        return list(axis.choices)
    assert isinstance(axis, FloatDistribution | IntDistribution)
    if not _is_range(axis):
        return list(range(int(axis.low), int(axis.high) + 1))
    return [at(axis, unit) for unit in np.linspace(0, 1, STEPS)]


def _raw(axis: BaseDistribution, values: Sequence[Any]) -> Array:
    """(n, features of the axis)."""
    if isinstance(axis, CategoricalDistribution):
        return np.array([[value == choice for choice in axis.choices] for value in values], dtype=float)
    assert isinstance(axis, FloatDistribution | IntDistribution)
    if not _is_range(axis):
        return (np.asarray(values)[:, None] > np.arange(axis.low, axis.high)).astype(float)
    unit = _unit(axis, np.asarray(values, dtype=float))
    return np.column_stack([unit, (2 * unit - 1) ** 2])


def _unit(axis: FloatDistribution | IntDistribution, value: Any) -> Any:
    low, high, value = (np.log(v) if axis.log else v for v in (axis.low, axis.high, value))
    return (value - low) / (high - low)


def _around(axis: BaseDistribution, value: float, rng: np.random.Generator) -> float:
    assert isinstance(axis, FloatDistribution | IntDistribution)
    unit = _unit(axis, value) + rng.uniform(-0.5, 0.5) / (STEPS - 1)
    return at(axis, min(max(unit, 0.0), 1.0))
