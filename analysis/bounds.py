"""Records within bounds, and the best of each size class.

A bound is at most that much of an objective that should be small, at least that much of one that should be
large.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pandas as pd

from ablate.config.objectives import OBJECTIVES, SIGN, Direction
from ablate.errors import unknown
from ablate.formatting import size_class

Bounds = Mapping[str, float]  # by objective
R = TypeVar("R", bound=Mapping[str, Any])  # a record


def feasible(
    records: pd.DataFrame, within: Bounds, objectives: Mapping[str, Direction] = OBJECTIVES
) -> pd.DataFrame:
    """The complete records within bounds.

    Args:
        records: a row per trial.
        within: the bounds.
        objectives: directions of objectives beside the built-in ones.

    Returns:
        Rows of the records.

    Raises:
        BadInput: a bound is on an unknown objective.
    """
    directions = {**OBJECTIVES, **objectives}
    complete = records[records["status"] == "complete"] if len(records) else records
    for name, bound in within.items():
        if name not in directions:
            raise unknown("objective", name, OBJECTIVES)
        sign = SIGN[directions[name]]
        complete = complete[sign * complete[name] <= sign * bound]
    return complete


def excess(costs: Mapping[str, Any], within: Bounds) -> dict[str, float]:
    """How far costs exceed each bound.

    Args:
        costs: values by objective; those that are missing or None are left out.
        within: the bounds.

    Returns:
        By objective, as a share of the bound; 0 or less within it.
    """
    known = {name: (costs[name], bound) for name, bound in within.items() if costs.get(name) is not None}
    return {
        name: float(SIGN[OBJECTIVES[name]] * (value / bound - 1)) for name, (value, bound) in known.items()
    }


def out_of_bounds(costs: Mapping[str, Any], within: Bounds) -> float:
    """The sum of what exceeds the bounds, each as in `excess`; 0 within all of them."""
    return sum(max(0.0, share) for share in excess(costs, within).values())


def best_by_size(records: Iterable[R], within: Bounds) -> dict[str, R]:
    """The most accurate complete record of each size class, among those within bounds.

    Args:
        records: of a run.
        within: the bounds.

    Returns:
        By size class, the smallest first.
    """
    best: dict[str, R] = {}
    complete = [r for r in records if r["status"] == "complete" and r["size_bytes"] and is_within(r, within)]
    for record in sorted(complete, key=lambda r: (r["size_bytes"], -r["accuracy"])):
        name = size_class(record["size_bytes"])
        if name not in best or record["accuracy"] > best[name]["accuracy"]:
            best[name] = record
    return best


def is_within(record: Mapping[str, Any], within: Bounds) -> bool:
    """Whether a record keeps all bounds. One without the objective keeps none on it."""
    for name, bound in within.items():
        sign = SIGN[OBJECTIVES[name]]
        if record[name] is None or not sign * record[name] <= sign * bound:
            return False
    return True
