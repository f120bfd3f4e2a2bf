"""Samplers that a study can name: one row each, from which help texts and documents are made.

`ablate.search.optuna_samplers` builds them. A study may also name a user's own sampler, as `module:name`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from ablate.errors import short_repr
from ablate.plugins import is_plugin


@dataclass(frozen=True)
class Sampler:
    """What a sampler does.

    Args:
        description: How it proposes trials, in a line.
        constraints: Whether the study's bounds steer its proposals. Whatever the sampler, no trial is trained
            whose size or latency is counted to be out of bounds.
        multi_objective: Whether several objectives steer its proposals.
    """

    description: str
    constraints: bool
    multi_objective: bool


TABLE: dict[str, Sampler] = {
    "additive": Sampler("a model of what each axis adds, solved as an integer programme", True, True),
    "tpe": Sampler("Optuna's multivariate tree-structured Parzen estimator", True, True),
    "nsga2": Sampler("Optuna's NSGA-II, a genetic algorithm", True, True),
    "gp": Sampler("Optuna's Gaussian process; takes seconds a proposal", True, True),
    "random": Sampler("uniform on every axis", False, False),
}
SAMPLERS = tuple(TABLE)


def _known_or_plugin(name: str) -> str:
    if name not in TABLE and not is_plugin(name):
        *most, last = map(repr, TABLE)
        raise ValueError(
            f"must be {', '.join(most)} or {last}, or your own as 'module:name', but got {short_repr(name)}"
        )
    return name


SamplerName = Annotated[str, AfterValidator(_known_or_plugin)]
