"""Pareto fronts of records: which trials no other trial beats on every objective, and how sure that is.

Everywhere: points (n, m), finite; directions m of "min" | "max". Equal points stand or fall together, and a tie in one
objective is decided by the others. All raise BadInput for points that are not such an array.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.bounds import feasible
from ablate.config.objectives import SIGN, Direction
from ablate.errors import BadInput

MARGIN = 0.1  # of the range, from the worst value to the reference point


def front(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.int64]:
    """Indices of the points that no other point dominates, in their order. Equal points are all kept."""
    return np.flatnonzero(moocore.is_nondominated(_costs(points, directions), keep_weakly=True))


def front_of(
    records: pd.DataFrame, objectives: Mapping[str, Direction], within: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The complete records on the front, the best in the first objective first.

    within: bounds that a record must keep to enter at all, as in {"size_bytes": 1e6, "accuracy": 0.5}: at most that much
    of what should be small, at least that much of what should be large. A value that is null keeps no bound.
    """
    complete = feasible(records, within or {}, objectives)
    if not len(complete):
        return complete
    complete = complete.dropna(subset=list(objectives))
    chosen = complete.iloc[front(complete[list(objectives)].to_numpy(), list(objectives.values()))]
    return chosen.sort_values(list(objectives), ascending=[d == "min" for d in objectives.values()])


def reference_point(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """In each objective the worst of the points, made worse by a tenth of their range: (m,).

    So the extremes of a front count, and a front that fills the unit square has the reference (1.1, 1.1) that is usual
    for it [Ishibuchi et al. 2018, Evol. Comput. 26(3)]. Where all are equal, their size takes the place of the range.
    Hypervolumes compare only with one reference: take it from the points of all that is compared, together.
    """
    costs = _costs(points, directions)
    if not len(costs):
        raise BadInput("a reference point needs at least one point, but got none")
    best, worst = costs.min(axis=0), costs.max(axis=0)
    span = np.where(worst > best, worst - best, np.where(worst == 0, 1.0, np.abs(worst)))
    return _signs(directions) * (worst + MARGIN * span)


def hypervolume(points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]) -> float:
    """The volume that the points dominate up to the reference point, exactly. Points that are not better than it add none.

    reference: (m,).
    """
    costs, limit = _costs(points, directions), _costs(np.atleast_2d(reference), directions)[0]
    return float(moocore.hypervolume(costs, limit)) if len(costs) else 0.0


def hypervolume_over_trials(
    points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]
) -> NDArray[np.float64]:
    """The hypervolume of the first point, of the first two, ..., of all: (n,), never falling.

    n log n for two objectives; else each point that enters the front costs a hypervolume.
    """
    costs, limit = _costs(points, directions), _costs(np.atleast_2d(reference), directions)[0]
    if costs.shape[1] == 2:
        return _staircase(costs, limit)
    volumes, volume, best = np.empty(len(costs)), 0.0, np.empty((0, costs.shape[1]))
    for i, cost in enumerate(costs):
        if not (best <= cost).all(axis=1).any():
            best = np.vstack([best[(best < cost).any(axis=1)], cost])
            volume = float(moocore.hypervolume(best, limit))
        volumes[i] = volume
    return volumes


def _staircase(costs: NDArray[np.float64], limit: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area after each of the costs (n, 2): a new point adds the boxes between it and the stairs above it."""
    x_limit, y_limit = limit.tolist()
    xs, ys = [-np.inf, x_limit], [y_limit, -np.inf]  # the corners: x rises, y falls
    areas, area = np.empty(len(costs)), 0.0
    for i, (x, y) in enumerate(costs.tolist()):
        at = end = bisect_left(xs, x)  # beyond the reference the ceiling is at minus infinity
        left, ceiling = x, ys[at - 1]
        while y < ceiling:
            area += (xs[end] - left) * (ceiling - y)
            left, ceiling, end = xs[end], ys[end], end + 1
        if end > at:
            xs[at : end - 1], ys[at : end - 1] = [x], [y]
        areas[i] = area
    return areas


def attainment(
    sets: Sequence[ArrayLike], directions: Sequence[Direction], level: float = 0.5
) -> NDArray[np.float64]:
    """The empirical attainment surface [Fonseca et al. 2011, EMO]: the best points that a share of the sets attains.

    sets: one array of points (n_i, m) a seed or run; m is 2 or 3. A set attains what one of its points equals or dominates,
    an empty one nothing. level: the share, in (0, 1]; 0.5 is the median front, 1 what every run reached. The surface's
    corners (k, m) are sorted by the first objective, the best first; k is 0 where no point is attained by so many.
    """
    if len(directions) not in (2, 3) or not 0 < level <= 1:
        raise BadInput(
            f"attainment is for 2 or 3 objectives and 0 < level <= 1, but got {len(directions)} and level={level}"
        )
    costs = [cost for points in sets if len(cost := _costs(points, directions))]
    needed = int(np.ceil(level * len(sets) - 1e-9))  # sets; 0.7 * 10 is above 7
    if needed > len(costs) or not costs:
        return np.empty((0, len(directions)))
    owner = np.repeat(np.arange(len(costs)), [len(cost) for cost in costs])
    corners = moocore.eaf(np.vstack(costs), owner, percentiles=[100 * needed / len(costs)])[:, :-1]  # (k, m)
    return _signs(directions) * corners[np.lexsort(corners.T[::-1])]


def knee(points: ArrayLike, directions: Sequence[Direction]) -> int | None:
    """The index of the front's knee, the first of equal ones; None where the front has none.

    The front is scaled to 0 (best) to 1 (worst) in each objective. Its knee has the smallest sum of them: for two objectives
    that is the point farthest below the line through the two extremes [Das 1999, Struct. Optim. 18(2)], and no unit of
    measurement changes it. It must be strictly below every extreme, the points that are the best in an objective.
    """
    costs, chosen = _costs(points, directions), front(points, directions)
    if not len(chosen):
        return None
    best = costs[chosen].min(axis=0)
    span = costs[chosen].max(axis=0) - best
    scaled = (costs[chosen] - best) / np.where(span == 0, 1, span)  # (k, m)
    total, extreme = scaled.sum(axis=1), ((scaled == 0) & (span > 0)).any(axis=1)
    if not extreme.any() or total.min() > total[extreme].min() - 1e-12:  # rounding is no knee
        return None
    return int(chosen[total.argmin()])


def front_probability(
    scores: ArrayLike, others: ArrayLike, directions: Sequence[Direction], samples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """How often each of n points is on the front when seeds and images are drawn anew: (n,), each +-sqrt(p (1 - p) / samples).

    scores: (n, seeds, images): each image's score in the first objective, as in correct or not; (n, images) with one seed.
    An axis of length 1 is not resampled, so (n, seeds, 1) takes accuracies over seeds alone. others: (n, m - 1), the
    objectives that are counted and do not vary. directions: m. A bootstrap of both axes, the same draws for all points
    [Owen 2007, Ann. Appl. Stat. 1(2)]: seeds must be paired. It shows too little of seeds that are few (their variance
    times (seeds - 1) / seeds), and points with equal scores and others have equal probabilities.
    """
    given = np.asarray(scores, dtype=float)
    given = given[:, None] if given.ndim == 2 else given
    costs = np.asarray(others, dtype=float).reshape(len(given), len(directions) - 1)
    if given.ndim != 3 or 0 in given.shape or not np.isfinite(given).all() or samples < 1:
        raise BadInput(
            f"scores must be finite, (n, seeds, images), and samples >= 1, but got {np.shape(scores)} and {samples}"
        )
    rng = np.random.default_rng(seed)
    _, seeds, images = given.shape
    of_seed = rng.multinomial(
        seeds, np.full(seeds, 1 / seeds), samples
    )  # (samples, seeds): how often each is drawn
    of_image = rng.multinomial(images, np.full(images, 1 / images), samples).astype(
        float
    )  # (samples, images)
    drawn = sum(
        of_image @ given[:, s].T * of_seed[:, s, None] for s in range(seeds)
    )  # (samples, n); of 0 and 1 exact
    on = np.zeros(len(given))
    for first in np.asarray(drawn):
        on[front(np.column_stack([first, costs]), directions)] += 1
    return on / samples


def _signs(directions: Sequence[Direction]) -> NDArray[np.float64]:
    return np.array([SIGN[direction] for direction in directions])


def _costs(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """The points (n, m) with every objective to be minimised."""
    found = np.asarray(points, dtype=float)
    found = found.reshape(len(found), -1) if found.size else np.empty((0, len(directions)))
    if found.shape[1] != len(directions) or not np.isfinite(found).all():
        raise BadInput(
            f"points must be finite and (n, {len(directions)}), a column a direction, but got {np.shape(points)}"
        )
    return found * _signs(directions)
