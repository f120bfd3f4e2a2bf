"""What the search needs of an axis' Optuna distribution: membership, random values and interpolation."""

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution has a value: one of its choices, or a number between its bounds."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A value at random, uniform over the choices or over the range, on its scale."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return interpolate(distribution, rng.random())


def interpolate(distribution: FloatDistribution | IntDistribution, position: float) -> float:
    """The value at a position in a range, from 0 to 1; the inverse of `position_of`."""
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** position if distribution.log else low + (high - low) * position
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def position_of(distribution: FloatDistribution | IntDistribution, value: Any) -> Any:
    """The position of a value, or of each of an array of values, in a range, from 0 to 1."""
    bounds_and_value = (distribution.low, distribution.high, value)
    low, high, value = (np.log(v) if distribution.log else v for v in bounds_and_value)
    return (value - low) / (high - low)


def choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    """All values of a distribution that is not continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return tuple(range(distribution.low, distribution.high + 1))


def n_values(distribution: BaseDistribution) -> float:
    """How many values a distribution has; infinitely many where it is continuous."""
    if isinstance(distribution, IntDistribution):
        return distribution.high - distribution.low + 1
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else math.inf
