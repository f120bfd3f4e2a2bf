"""How samplers see points: choices that have an order as integers, so that neighbours are near."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from ablate.config.precisions import WEIGHTS
from ablate.search.parameter_space import Point


class OrdinalEncoder:
    """Replaces a choice by its rank on each axis whose choices have an order; other axes stay as they are.

    Args:
        distributions: Of the axes, by name.

    Attributes:
        ranked: The choices of each ordered axis, from low to high.
        distributions: Of the axes of encoded points, by name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        ranked = {name: _ranked(name, distribution) for name, distribution in distributions.items()}
        self.ranked = {name: values for name, values in ranked.items() if values}
        self.distributions = {
            name: IntDistribution(0, len(self.ranked[name]) - 1) if name in self.ranked else distribution
            for name, distribution in distributions.items()
        }

    def encode(self, point: Point) -> Point:
        """A point with ranks in place of ordered choices."""
        return {n: self.ranked[n].index(value) if n in self.ranked else value for n, value in point.items()}

    def decode(self, encoded: Point) -> Point:
        """The inverse of `encode`."""
        return {n: self.ranked[n][value] if n in self.ranked else value for n, value in encoded.items()}


def _ranked(name: str, distribution: BaseDistribution) -> tuple[Any, ...]:
    """The choices from low to high, () where they have no order; "none" is above all numbers."""
    if not isinstance(distribution, CategoricalDistribution) or len(distribution.choices) < 3:
        return ()
    choices = distribution.choices
    if name.rpartition(".")[2] == "weights":
        return tuple(sorted(choices, key=WEIGHTS.index))
    if all(v == "none" or (isinstance(v, int | float) and not isinstance(v, bool)) for v in choices):
        return tuple(sorted(choices, key=lambda v: (v == "none", v)))
    return ()
