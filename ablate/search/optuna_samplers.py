"""Optuna's samplers, and a user's own: how each is built for a proposal.

A sampler is built anew for each proposal, so that no state is left in it: what it proposes depends only on
its seed and on the trials of its Optuna study.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from ablate.errors import BadInput, short_repr, unknown
from ablate.plugins import is_plugin, load_plugin

POPULATION = 20  # of NSGA-II: a study has tens or hundreds of trials
N_STARTUP = 10  # random trials before TPE and the Gaussian process propose

Distributions = Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class SamplerFactory:
    """How a sampler is built, and what it needs of the trials that it learns from.

    Args:
        build: Takes the distributions of the axes, a seed, and after how many trials the sampler begins to
            learn; returns the sampler.
        learns_infeasible: Whether it learns from points that are out of bounds and have no values.
        learns_pruned: Whether it learns from trials that were stopped early, by their extrapolated
            objectives.
        system_attrs: Takes how many complete trials came before; returns what the sampler reads of the next
            one besides its values.
    """

    build: Callable[[Distributions, int, int], BaseSampler]
    learns_infeasible: bool = False
    learns_pruned: bool = False
    system_attrs: Callable[[int], dict[str, Any]] = lambda n_complete: {}


def sampler_factory(name: str) -> SamplerFactory:
    """How a study's sampler is built.

    Args:
        name: A sampler of `ablate.config.samplers.TABLE`, or a user's own as `module:name`, which is
            imported.

    Returns:
        The factory. That of a user's own sampler has been tried once.

    Raises:
        BadInput: The name is unknown, or what it names is not importable or not a sampler.
    """
    if is_plugin(name):
        return SamplerFactory(_plugin_builder(name))
    if name not in FACTORIES:
        raise unknown("sampler", name, FACTORIES)
    return FACTORIES[name]


def _plugin_builder(name: str) -> Callable[[Distributions, int, int], BaseSampler]:
    make, attribute = load_plugin("sampler", name), name.partition(":")[2]
    rule = f"sampler {short_repr(name)} must be callable as {attribute}(seed=...)"
    try:
        sampler = make(seed=0)
    except Exception as error:
        raise BadInput(f"{rule}, but got {type(error).__name__}: {error}; fix it in its module") from None
    if not isinstance(sampler, BaseSampler):
        raise BadInput(
            f"{rule} and return an optuna.samplers.BaseSampler, but it returned {type(sampler).__name__}; "
            f"derive its class from BaseSampler"
        )
    return lambda axes, seed, n_startup: make(seed=seed)


class _FixedSpace:
    """A sampler over known axes. Optuna would gather them from all trials at each proposal."""

    def __init__(self, axes: Distributions, **options: Any) -> None:
        super().__init__(**options)
        self.axes = {name: axis for name, axis in axes.items() if not axis.single()}

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self.axes


class _TPE(_FixedSpace, optuna.samplers.TPESampler):
    pass


class _GP(_FixedSpace, optuna.samplers.GPSampler):
    def sample_relative(
        self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """On one thread: matrices are small, other cores train, and sums depend on the threads."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)


class _NSGA2(_FixedSpace, optuna.samplers.NSGAIISampler):
    def get_parent_population(self, study: Any, generation: int) -> list[Any]:
        """In order of their numbers, whether the population is selected now or read from Optuna's cache."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


def _random(axes: Distributions, seed: int, n_startup: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(axes: Distributions, seed: int, n_startup: int) -> BaseSampler:
    return _TPE(axes, seed=seed, n_startup_trials=n_startup, multivariate=True, constant_liar=True)


def _gp(axes: Distributions, seed: int, n_startup: int) -> BaseSampler:
    return _GP(axes, seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)


def _nsga2(axes: Distributions, seed: int, n_startup: int) -> BaseSampler:
    return _NSGA2(axes, seed=seed, population_size=POPULATION)


def _generation(n_complete: int) -> dict[str, Any]:
    return {_NSGA2._get_generation_key(): n_complete // POPULATION}


FACTORIES = {
    "additive": SamplerFactory(_random, learns_pruned=True),  # `additive_sampler` chooses the points
    "tpe": SamplerFactory(_tpe, learns_infeasible=True),
    "nsga2": SamplerFactory(_nsga2, system_attrs=_generation),
    "gp": SamplerFactory(_gp),
    "random": SamplerFactory(_random),
}
