"""Pareto fronts of records: which trials no other trial beats on every objective."""

from collections.abc import Sequence
from typing import Literal

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Direction = Literal["min", "max"]


def front(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.int64]:
    """Indices of the points that no other point dominates, in their order. Equal points are all kept.

    points: (n, m), finite. directions: m of "min" or "max".
    """
    points = np.asarray(points, dtype=float).reshape(-1, len(directions))  # (n, m)
    if len(points) == 0:
        return np.array([], dtype=np.int64)
    maximise = [direction == "max" for direction in directions]
    return np.flatnonzero(moocore.is_nondominated(points, maximise=maximise, keep_weakly=True))


def hypervolume(points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]) -> float:
    """The volume that the points dominate up to the reference point, exactly.

    points: (n, m), finite; reference: (m,), no better than the points that should count. directions: m of "min" or "max".
    """
    return moocore.hypervolume(np.asarray(points, dtype=float), reference, maximise=[d == "max" for d in directions])


def front_of(records: pd.DataFrame, objectives: dict[str, Direction]) -> pd.DataFrame:
    """The complete records on the front, the best in the first objective first."""
    complete = records[records["status"] == "complete"] if len(records) else records
    if not len(complete):
        return complete
    complete = complete.dropna(subset=list(objectives))
    chosen = complete.iloc[front(complete[list(objectives)].to_numpy(), list(objectives.values()))]
    return chosen.sort_values(list(objectives), ascending=[d == "min" for d in objectives.values()])
