"""Who proposes the next point: Optuna's samplers, over axes that are known, and as functions of the trials alone."""

from collections.abc import Mapping
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from ablate.config.precisions import WEIGHTS
from ablate.errors import unknown
from ablate.search.parameter_space import Point

POPULATION = 20  # of NSGA-II: a study has tens or hundreds of trials
SAMPLERS = ("additive", "tpe", "nsga2", "gp", "random")
STARTUP = 10  # trials at random before TPE and the Gaussian process propose


def sampler_of(
    name: str, axes: Mapping[str, BaseDistribution], seed: int, warned: int = 0
) -> optuna.samplers.BaseSampler:
    """A sampler, new for each proposal, so that no state is left in it. `warned`: points told before the first trial.

    Raises BadInput for a name that is none.
    """
    startup = STARTUP + warned
    known = {axis: values for axis, values in axes.items() if not values.single()}
    if name in ("random", "additive"):
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return _NSGA2(known, seed=seed, population_size=POPULATION)
    if name == "gp":
        return _GP(known, seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    if name == "tpe":
        return _TPE(known, seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)
    raise unknown("sampler", name, SAMPLERS)


def attributes(name: str, number: int) -> dict[str, Any]:
    """What a sampler must know of the n-th complete trial besides its values: its generation."""
    return {_NSGA2._get_generation_key(): number // POPULATION} if name == "nsga2" else {}


class Code:
    """How a sampler sees points: where choices have an order, by their place in it, so that neighbours are near."""

    def __init__(self, axes: Mapping[str, BaseDistribution]) -> None:
        self.ladders = {name: ladder for name, axis in axes.items() if (ladder := _ladder(name, axis))}
        self.axes = {
            name: IntDistribution(0, len(self.ladders[name]) - 1) if name in self.ladders else axis
            for name, axis in axes.items()
        }

    def code(self, point: Point) -> Point:
        return {name: self.ladders[name].index(v) if name in self.ladders else v for name, v in point.items()}

    def decode(self, coded: Point) -> Point:
        return {name: self.ladders[name][v] if name in self.ladders else v for name, v in coded.items()}


def _ladder(name: str, axis: BaseDistribution) -> tuple[Any, ...]:
    """An axis' choices from low to high, () where they have no order; no number ("none") is above all numbers."""
    if not isinstance(axis, CategoricalDistribution) or len(axis.choices) < 3:
        return ()
    if name.rpartition(".")[2] == "weights":
        return tuple(sorted(axis.choices, key=WEIGHTS.index))
    if all(v == "none" or (isinstance(v, int | float) and not isinstance(v, bool)) for v in axis.choices):
        return tuple(sorted(axis.choices, key=lambda v: (v == "none", v)))
    return ()


class _Known:
    """A sampler over known axes; Optuna would gather them from all trials at each proposal."""

    def __init__(self, axes: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self.axes = axes

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self.axes


class _TPE(_Known, optuna.samplers.TPESampler):
    pass


class _GP(_Known, optuna.samplers.GPSampler):
    def sample_relative(
        self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """On one thread: its matrices are small, the other cores train, and sums do not depend on how many there are."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)


class _NSGA2(_Known, optuna.samplers.NSGAIISampler):
    def get_parent_population(self, study: Any, generation: int) -> list[Any]:
        """In one order, whether it was just selected or is remembered."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)
