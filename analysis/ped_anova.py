"""PED-ANOVA by Optuna: how the parameters of the best trials differ from those of all trials.

arXiv 2304.10255; for parameters that exist only in some trials: arXiv 2601.20800, theorem 4.2.
"""

import warnings
from typing import Any, Self

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

TOP = 0.1  # share of the trials that count as the best ...
MIN_TOP_TRIALS = 5  # ... and at least this many, as Optuna advises
MAX_CHOICES = 10  # a numeric parameter with more values is cut into ...
PARTS = 4  # ... this many parts of equal size: on a finer grid a few good trials always look special
PRIOR_WEIGHT = 0.1  # trials; with Optuna's 1.0 a choice that all of the best have counts as 60 % of them


def top_trials(n: int) -> int:
    """How many of n trials count as the best."""
    return max(MIN_TOP_TRIALS, int(np.ceil(TOP * n)))


def to_study(points: pd.DataFrame) -> optuna.Study:
    """The trials as an Optuna study. Their values are given to `ped_anova`.

    Args:
        points: (n, parameters); None where a parameter has no effect.

    Returns:
        A study with n complete trials in the same order.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = points.apply(_cut)
    choices = {
        name: sorted(set(points[name].dropna()), key=lambda value: (isinstance(value, str), value))
        for name in points
    }
    distributions = {name: _Choices(values) for name, values in choices.items()}
    study = optuna.create_study()
    for row in points.to_dict("records"):
        params = {name: value for name, value in row.items() if value is not None}
        axes = {name: distributions[name] for name in params}
        study.add_trial(optuna.create_trial(params=params, distributions=axes, value=0.0))
    return study


def ped_anova(study: optuna.Study, names: list[str], losses: NDArray[np.float64]) -> dict[str, float]:
    """The Pearson divergence between each parameter's values in the best trials and in all trials.

    Args:
        study: n trials, from `to_study`.
        names: the parameters.
        losses: (n,), smaller is better.

    Returns:
        The divergence of each parameter, 0 or more, not normalised.
    """
    evaluator = PedAnovaImportanceEvaluator(target_quantile=top_trials(len(losses)) / len(losses))
    evaluator._prior_weight = PRIOR_WEIGHT
    options: dict[str, Any] = {"target": lambda trial: losses[trial.number], "normalize": False}
    with warnings.catch_warnings():
        # of `normalize`, which is experimental, of smaller being better, and of values in one trial only
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=evaluator, params=names, **options)


class _Choices(CategoricalDistribution):
    """A categorical distribution that looks values up by hash and compares by identity.

    Optuna copies and compares the distributions of all trials, choice by choice, which is slow for many
    trials.
    """

    def __init__(self, choices: list[Any]) -> None:
        super().__init__(choices)
        self._index = {choice: index for index, choice in enumerate(choices)}

    def to_internal_repr(self, param_value_in_external_repr: Any) -> float:
        return self._index[param_value_in_external_repr]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _cut(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """A numeric parameter with many values as the number of its part; any other as it is."""
    effective = values.dropna()
    if effective.nunique() <= MAX_CHOICES or effective.map(lambda value: isinstance(value, str)).any():
        return values
    parts = pd.qcut(effective.astype(float), PARTS, labels=False, duplicates="drop")
    by_row = dict(zip(effective.index, parts.tolist(), strict=True))
    return pd.Series([by_row.get(i) for i in values.index], index=values.index, dtype=object)
