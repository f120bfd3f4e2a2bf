"""How sure a Pareto front is, over runs, seeds and images. Points and directions are as in `pareto`."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.mean_draws import as_floats, as_scores, draw_means
from ablate.analysis.nondominated import front, signs, to_costs
from ablate.config.objectives import Direction
from ablate.errors import BadInput


def attainment(
    sets: Sequence[ArrayLike], directions: Sequence[Direction], level: float = 0.5
) -> NDArray[np.float64]:
    """The empirical attainment surface: the best points that a share of the sets attains.

    Fonseca et al. 2011, EMO. A set attains what one of its points equals or dominates; an empty set attains
    nothing.

    Args:
        sets: points (n_i, m) of each run; m is 2 or 3.
        directions: m.
        level: the share, in (0, 1]; 0.5 is the median front, 1 what every run reached.

    Returns:
        The surface's corners (k, m), the best in the first objective first; k is 0 where too few sets attain
        any point.

    Raises:
        BadInput: another number of objectives, or the level is out of its range.
    """
    if len(directions) not in (2, 3) or not 0 < level <= 1:
        got = f"{len(directions)} and level={level}"
        raise BadInput(f"attainment is for 2 or 3 objectives and 0 < level <= 1, but got {got}")
    costs = [cost for points in sets if len(cost := to_costs(points, directions))]
    needed = int(np.ceil(level * len(sets) - 1e-9))  # sets; 0.7 * 10 is above 7
    if needed > len(costs) or not costs:
        return np.empty((0, len(directions)))
    owner = np.repeat(np.arange(len(costs)), [len(cost) for cost in costs])
    corners = moocore.eaf(np.vstack(costs), owner, percentiles=[100 * needed / len(costs)])[:, :-1]  # (k, m)
    return signs(directions) * corners[np.lexsort(corners.T[::-1])]


def front_probability(
    scores: ArrayLike, others: ArrayLike, directions: Sequence[Direction], samples: int = 4000, seed: int = 0
) -> NDArray[np.float64]:
    """How probable it is that each point is on the front of the expected scores, over seeds and images.

    The share of draws as in `mean_draws.draw_means` in which the point is on the front. Of two points whose
    expected scores are equal, each has a probability of .95 or more in 1 of 20 cases, from two seeds on:
    benchmarks/front_calibration.py. Points with equal scores and others have equal probabilities.

    Args:
        scores: (n, seeds) or (n, seeds, images), in the first objective, as accuracy or whether an image is
            classified correctly; seeds are paired.
        others: (n, m - 1), finite, the objectives that are counted and do not vary.
        directions: m.
        samples: draws.
        seed: of the random numbers.

    Returns:
        (n,) probabilities, each with the standard error sqrt(p (1 - p) / samples); NaN for one seed, which
        tells nothing about the noise between seeds.

    Raises:
        BadInput: scores or others have another shape or are not finite, or samples < 1.
    """
    values = as_scores(scores)
    if samples < 1:
        raise BadInput(f"samples >= 1 must hold, but got {samples}")
    costs, shape = as_floats(others, "others"), (len(values), len(directions) - 1)
    if costs.shape[:1] != shape[:1] or costs.size != shape[0] * shape[1] or not np.isfinite(costs).all():
        raise BadInput(f"others must be finite and {shape}, but got {costs.shape}: {costs.tolist()}")
    if values.shape[1] == 1:
        return np.full(len(values), np.nan)
    on_front = np.zeros(len(values))
    for first in draw_means(values, samples, seed):
        on_front[front(np.column_stack([first, costs.reshape(shape)]), directions)] += 1
    return on_front / samples
