"""How sure a Pareto front is, over runs, seeds and images. Points and directions are as in `pareto`."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    scores: ArrayLike, others: ArrayLike, directions: Sequence[Direction], samples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """How often each point is on the front when seeds and images are drawn anew.

    A bootstrap of both axes, with the same draws for all points (Owen 2007, Ann. Appl. Stat. 1(2)), so seeds
    must be paired. It underestimates the variance of few seeds, by (seeds - 1) / seeds. Points with equal
    scores and others have equal probabilities.

    Args:
        scores: (n, seeds, images), each image's score in the first objective, such as correct or not; (n,
            images) for one seed. An axis of length 1 is not resampled, so (n, seeds, 1) takes accuracies over
            seeds alone.
        others: (n, m - 1), the objectives that are counted and do not vary.
        directions: m.
        samples: draws.
        seed: of the random numbers.

    Returns:
        (n,) probabilities, each with the standard error sqrt(p (1 - p) / samples).

    Raises:
        BadInput: scores have another shape or are not finite, or samples < 1.
    """
    values = np.asarray(scores, dtype=float)
    values = values[:, None] if values.ndim == 2 else values
    costs = np.asarray(others, dtype=float).reshape(len(values), len(directions) - 1)
    if values.ndim != 3 or 0 in values.shape or not np.isfinite(values).all() or samples < 1:
        rule = "scores must be finite, (n, seeds, images), and samples >= 1"
        raise BadInput(f"{rule}, but got {np.shape(scores)} and {samples}")
    rng = np.random.default_rng(seed)
    _, seeds, images = values.shape
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), samples)  # (samples, seeds)
    image_counts = rng.multinomial(images, np.full(images, 1 / images), samples).astype(float)
    drawn = np.zeros((samples, len(values)))  # exact for scores of 0 and 1
    for s in range(seeds):
        drawn += image_counts @ values[:, s].T * seed_counts[:, s, None]  # (samples, images) @ (images, n)
    on_front = np.zeros(len(values))
    for first in drawn:
        on_front[front(np.column_stack([first, costs]), directions)] += 1
    return on_front / samples
