"""Pareto fronts: which trials no other trial beats on every objective.

Everywhere: points (n, m), finite, a column per objective; directions are m of "min" | "max". Equal points
stand or fall together, and a tie in one objective is decided by the others. All functions raise BadInput for
other points.
"""

from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.bounds import feasible
from ablate.config.objectives import SIGN, Direction
from ablate.errors import BadInput


def front(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.int64]:
    """The points that no other point dominates.

    Args:
        points: (n, m).
        directions: m.

    Returns:
        Their indices, ascending. Equal points are all kept.
    """
    return np.flatnonzero(moocore.is_nondominated(to_costs(points, directions), keep_weakly=True))


def front_of(
    records: pd.DataFrame, objectives: Mapping[str, Direction], within: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The complete records on the front.

    Args:
        records: a row per trial.
        objectives: their directions.
        within: bounds that a record must keep, such as {"size_bytes": 1e6, "accuracy": 0.5}: at most that
            much of what should be small, at least that much of what should be large. A null value keeps no
            bound.

    Returns:
        Rows of the records, the best in the first objective first.
    """
    complete = feasible(records, within or {}, objectives)
    if not len(complete):
        return complete
    complete = complete.dropna(subset=list(objectives))
    chosen = complete.iloc[front(complete[list(objectives)].to_numpy(), list(objectives.values()))]
    return chosen.sort_values(list(objectives), ascending=[d == "min" for d in objectives.values()])


def knee(points: ArrayLike, directions: Sequence[Direction]) -> int | None:
    """The knee of the front.

    The front is scaled to 0 (best) to 1 (worst) in each objective. Its knee has the smallest sum of them. For
    two objectives that is the point farthest below the line through the two extremes (Das 1999, Struct.
    Optim. 18(2)), and the units do not matter. It must be strictly below every extreme, the points that are
    the best in an objective.

    Args:
        points: (n, m).
        directions: m.

    Returns:
        Its index, the first of equal ones; None where the front has no knee.
    """
    costs, chosen = to_costs(points, directions), front(points, directions)
    if not len(chosen):
        return None
    best = costs[chosen].min(axis=0)
    span = costs[chosen].max(axis=0) - best
    scaled = (costs[chosen] - best) / np.where(span == 0, 1, span)  # (k, m)
    total, extreme = scaled.sum(axis=1), ((scaled == 0) & (span > 0)).any(axis=1)
    if not extreme.any() or total.min() > total[extreme].min() - 1e-12:  # rounding makes no knee
        return None
    return int(chosen[total.argmin()])


def to_costs(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """The points with every objective to be minimised.

    Args:
        points: (n, m); empty for n = 0.
        directions: m.

    Returns:
        (n, m).

    Raises:
        BadInput: the points are not finite or have another number of columns.
    """
    costs = np.asarray(points, dtype=float)
    costs = costs.reshape(len(costs), -1) if costs.size else np.empty((0, len(directions)))
    if costs.shape[1] != len(directions) or not np.isfinite(costs).all():
        rule = f"points must be finite and (n, {len(directions)}), a column per direction"
        raise BadInput(f"{rule}, but got {np.shape(points)}")
    return costs * signs(directions)


def signs(directions: Sequence[Direction]) -> NDArray[np.float64]:
    """What turns objectives into costs and back: (m,), 1 for "min" and -1 for "max"."""
    return np.array([SIGN[direction] for direction in directions])
