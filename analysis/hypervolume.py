"""The hypervolume of a Pareto front. Points and directions are as in `pareto`."""

from bisect import bisect_left
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.nondominated import signs, to_costs
from ablate.config.objectives import Direction
from ablate.errors import BadInput

MARGIN = 0.1  # of the range, from the worst value to the reference point


def reference_point(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """The worst value of each objective, made worse by a tenth of its range.

    So the extremes of a front count, and a front that fills the unit square has the usual reference (1.1,
    1.1) (Ishibuchi et al. 2018, Evol. Comput. 26(3)). Where all values are equal, their size takes the place
    of the range. Hypervolumes compare only with the same reference: compute it from all points that are
    compared, together.

    Args:
        points: (n, m), n > 0.
        directions: m.

    Returns:
        (m,).

    Raises:
        BadInput: there is no point.
    """
    costs = to_costs(points, directions)
    if not len(costs):
        raise BadInput("a reference point needs at least one point, but got none")
    best, worst = costs.min(axis=0), costs.max(axis=0)
    span = np.where(worst > best, worst - best, np.where(worst == 0, 1.0, np.abs(worst)))
    return signs(directions) * (worst + MARGIN * span)


def hypervolume(points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]) -> float:
    """The volume that the points dominate up to the reference point, exactly.

    Args:
        points: (n, m); those that are not better than the reference add nothing.
        reference: (m,).
        directions: m.

    Returns:
        The volume, 0 without points.
    """
    costs, limit = to_costs(points, directions), to_costs(np.atleast_2d(reference), directions)[0]
    return float(moocore.hypervolume(costs, limit)) if len(costs) else 0.0


def hypervolume_over_trials(
    points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]
) -> NDArray[np.float64]:
    """The hypervolume of the first point, of the first two, and so on to all.

    It takes n log n for two objectives; for more, each point that enters the front costs a hypervolume.

    Args:
        points: (n, m), in the order of the trials.
        reference: (m,).
        directions: m.

    Returns:
        (n,), never falling.
    """
    costs, limit = to_costs(points, directions), to_costs(np.atleast_2d(reference), directions)[0]
    if costs.shape[1] == 2:
        return _areas(costs, limit)
    volumes, volume, best = np.empty(len(costs)), 0.0, np.empty((0, costs.shape[1]))
    for i, cost in enumerate(costs):
        if not (best <= cost).all(axis=1).any():
            best = np.vstack([best[(best < cost).any(axis=1)], cost])
            volume = float(moocore.hypervolume(best, limit))
        volumes[i] = volume
    return volumes


def _areas(costs: NDArray[np.float64], limit: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area after each of the costs (n, 2): a new point adds the boxes up to the staircase above it."""
    x_limit, y_limit = limit.tolist()
    xs, ys = [-np.inf, x_limit], [y_limit, -np.inf]  # the corners: x rises, y falls
    areas, area = np.empty(len(costs)), 0.0
    for i, (x, y) in enumerate(costs.tolist()):
        start = end = bisect_left(xs, x)  # beyond the reference the ceiling is at minus infinity
        left, ceiling = x, ys[start - 1]
        while y < ceiling:
            area += (xs[end] - left) * (ceiling - y)
            left, ceiling, end = xs[end], ys[end], end + 1
        if end > start:
            xs[start : end - 1], ys[start : end - 1] = [x], [y]
        areas[i] = area
    return areas
