"""Which parameter matters for each objective, by PED-ANOVA. A note says what the records cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.parameters import parameters
from ablate.analysis.ped_anova import best_trials, divergences
from ablate.config.objectives import SIGN, Direction

MIN_TRIALS = 20  # so that the best trials are at most a quarter
SHUFFLES = 999
LEVEL = (
    0.05  # of the tables of an objective in which nothing matters, the share where one row is beyond chance
)
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
        a bound over all rows of the objective together: where no parameter has an effect, 1 table in 20 has a
        row beyond it. It comes from 999 shuffles of the objective, so it takes the trials as exchangeable,
        as those of a random search are. A parameter without an effect exceeds it more often if it is
        correlated with a parameter that has an effect. `trials`: those that have the parameter.
    """
    rows: list[dict[str, Any]] = []
    reasons: dict[str, list[str]] = {}
    cache: dict[tuple[int, ...], pd.DataFrame] = {}  # most objectives have the same trials
    for objective, direction in objectives.items():
        usable = usable_records(records, objective)
        key = tuple(map(id, usable["spec"]))
        if key not in cache:
            cache[key] = parameters(usable)
        points = cache[key]
        losses = usable[objective].to_numpy(dtype=float) * SIGN[direction]  # (n,)
        if reason := _unusable(losses, points):
            reasons.setdefault(reason, []).append(objective)
        else:
            rows += [{"objective": objective, **row} for row in _importances(points, losses, seed)]
    return Importance(pd.DataFrame(rows, columns=list(COLUMNS)), joined(reasons))


def _importances(points: pd.DataFrame, losses: NDArray[np.float64], seed: int) -> list[dict[str, Any]]:
    """A row per parameter of points (n, parameters), by losses (n,), the most important first."""
    best, random = best_trials(losses), np.random.default_rng(seed)
    shuffled = [random.choice(len(losses), len(best), replace=False) for _ in range(SHUFFLES)]
    values = divergences(points, np.stack([best, *shuffled]))  # (1 + SHUFFLES, parameters)
    total, chance = values[0].sum() or 1.0, _bound(values)
    rows = [
        {
            "parameter": name,
            "importance": value / total,
            "chance": limit / total,
            "trials": int(points[name].notna().sum()),
        }
        for name, value, limit in zip(points, values[0], chance, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["importance"], row["parameter"]))


def _bound(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What all parameters together exceed with a probability of 5 %, by the maximum over them.

    Westfall and Young 1993. Parameters count alike, whatever their number of choices, because
    the maximum is over values in standard deviations.

    Args:
        values: (1 + SHUFFLES, parameters), the observed ones first.

    Returns:
        (parameters,).
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scaled = (values - mean) / np.where(spread > 0, spread, np.inf)
    largest = np.sort(scaled[1:].max(axis=1))  # (SHUFFLES,)
    return mean + largest[-round(LEVEL * len(values))] * spread


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
    if len(best_trials(losses)) == len(losses):
        return "the best trials are no better than the rest"
    return ""
