"""Which parameter matters for each objective, by PED-ANOVA. A note says what the records cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.parameters import parameters
from ablate.analysis.ped_anova import ped_anova, to_study, top_trials
from ablate.config.objectives import SIGN, Direction

MIN_TRIALS = 20  # so that the best trials are at most a quarter
SHUFFLES = 19  # the fewest whose maximum chance exceeds 1 time in 20
COLUMNS = ("objective", "parameter", "importance", "chance", "trials")


@dataclass(frozen=True)
class Importance:
    """An analysis of the parameters.

    Attributes:
        table: a row per objective and parameter or layer group.
        note: what the records cannot tell, and why; "" where they tell everything.
    """

    table: pd.DataFrame
    note: str


@dataclass(frozen=True)
class _Trials:
    points: pd.DataFrame

    @cached_property
    def study(self) -> optuna.Study:
        return to_study(self.points)


def by_parameter(records: pd.DataFrame, objectives: Mapping[str, Direction], seed: int = 0) -> Importance:
    """How far each parameter decides whether a trial is among the best tenth in an objective.

    A parameter that spoils a trial without being needed for the best ones matters less here than in
    `by_layer`.

    Args:
        records: as `load_run(RUN).records`. Only complete trials that have the objective count.
        objectives: their directions.
        seed: of the shuffles.

    Returns:
        A row per objective and parameter, the most important first. `importance` is a share of 1: how far the
        parameter's values in the best trials differ from those in all trials. `chance`, on the same scale, is
        the largest importance in 19 shuffles of the objective. A parameter without an effect exceeds it 1
        time in 20, but more often if it is correlated with a parameter that has an effect. `trials`: those
        that have the parameter.
    """
    rows: list[dict[str, Any]] = []
    reasons: dict[str, list[str]] = {}
    cache: dict[tuple[int, ...], _Trials] = {}  # most objectives have the same trials
    for objective, direction in objectives.items():
        usable = usable_records(records, objective)
        key = tuple(map(id, usable["spec"]))
        if key not in cache:
            cache[key] = _Trials(parameters(usable))
        trials = cache[key]
        losses = usable[objective].to_numpy(dtype=float) * SIGN[direction]  # (n,)
        if reason := _unusable(losses, trials.points):
            reasons.setdefault(reason, []).append(objective)
        else:
            rows += [{"objective": objective, **row} for row in _importances(trials, losses, seed)]
    return Importance(pd.DataFrame(rows, columns=list(COLUMNS)), joined(reasons))


def _importances(trials: _Trials, losses: NDArray[np.float64], seed: int) -> list[dict[str, Any]]:
    """A row per parameter, by losses (n,), the most important first."""
    names, random = list(trials.points), np.random.default_rng(seed)
    divergence = ped_anova(trials.study, names, losses)
    shuffled = [ped_anova(trials.study, names, random.permutation(losses)) for _ in range(SHUFFLES)]
    total = sum(divergence.values()) or 1.0
    return [
        {
            "parameter": name,
            "importance": divergence[name] / total,
            "chance": max(each[name] for each in shuffled) / total,
            "trials": int(trials.points[name].notna().sum()),
        }
        for name in sorted(divergence, key=lambda name: (-divergence[name], name))
    ]


def usable_records(records: pd.DataFrame, objective: str) -> pd.DataFrame:
    """The complete records with a finite value of the objective, numbered anew."""
    complete = records[records["status"] == "complete"]
    return complete[np.isfinite(complete[objective].astype(float))].reset_index(drop=True)


def joined(reasons: Mapping[str, list[str]]) -> str:
    """Reasons as one note, each with the objectives that it holds for: "accuracy, loss: REASON"."""
    return "; ".join(f"{', '.join(objectives)}: {reason}" for reason, objectives in reasons.items())


def _unusable(losses: NDArray[np.float64], points: pd.DataFrame) -> str:
    """Why losses (n,) and parameters (n, p) tell no importance; "" where they do."""
    if len(losses) < MIN_TRIALS:
        return f"{len(losses)} complete trials are too few; {MIN_TRIALS} or more are needed"
    if points.empty:
        return f"nothing varies in the {len(losses)} complete trials"
    if (losses <= np.sort(losses)[top_trials(len(losses)) - 1]).all():
        return "the best trials are no better than the rest"
    return ""
