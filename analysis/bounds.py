"""Records within bounds, and the best of each size class."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pandas as pd

from ablate.config.objectives import OBJECTIVES, SIGN, Direction
from ablate.errors import unknown
from ablate.formatting import size_class

R = TypeVar("R", bound=Mapping[str, Any])  # a record


def feasible(
    records: pd.DataFrame, within: Mapping[str, float], objectives: Mapping[str, Direction] = OBJECTIVES
) -> pd.DataFrame:
    """The complete records that keep the bounds of `front_of`."""
    complete = records[records["status"] == "complete"] if len(records) else records
    for name, bound in within.items():
        if (best := {**OBJECTIVES, **objectives}.get(name)) is None:
            raise unknown("objective", name, OBJECTIVES)
        complete = complete[SIGN[best] * complete[name] <= SIGN[best] * bound]
    return complete


def excess(costs: Mapping[str, Any], within: Mapping[str, float]) -> dict[str, float]:
    """How far costs are out of each bound that is known of them, as a share of it; 0 or less within it."""
    known = {name: (costs[name], bound) for name, bound in within.items() if costs.get(name) is not None}
    return {
        name: float(SIGN[OBJECTIVES[name]] * (value / bound - 1)) for name, (value, bound) in known.items()
    }


def out_of_bounds(costs: Mapping[str, Any], within: Mapping[str, float]) -> float:
    """The sum of what is in excess; 0 within the bounds."""
    return sum(max(0.0, share) for share in excess(costs, within).values())


def best_by_size(records: Iterable[R], within: Mapping[str, float]) -> dict[str, R]:
    """Find the most accurate complete record of each size class.

    Args:
        records: Records, of which those out of bounds are left out.
        within: The bounds, by objective.

    Returns:
        The records by size class, the smallest class first.
    """
    best: dict[str, R] = {}
    complete = [r for r in records if r["status"] == "complete" and r["size_bytes"] and is_within(r, within)]
    for record in sorted(complete, key=lambda r: (r["size_bytes"], -r["accuracy"])):
        name = size_class(record["size_bytes"])
        if name not in best or record["accuracy"] > best[name]["accuracy"]:
            best[name] = record
    return best


def is_within(record: Mapping[str, Any], within: Mapping[str, float]) -> bool:
    """Return whether a record keeps all bounds: upper ones of what is minimized, lower ones of the rest."""
    signs = {name: SIGN[OBJECTIVES[name]] for name in within}
    return all(
        record[n] is not None and signs[n] * record[n] <= signs[n] * bound for n, bound in within.items()
    )
