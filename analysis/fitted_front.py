"""A curve through a Pareto front, accuracy over log size, with its band, its knee and the size for a loss."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from ablate.analysis.mean_draws import TAILS, as_floats, as_scores, draw_means, mean_intervals
from ablate.analysis.t_interval import ROUNDING, Floats
from ablate.errors import BadInput

MIN_SIZES = 3
MIN_KNEE_SIZES = 4  # of three sizes only the middle one can be the knee, whatever the scores
MIN_SEEDS = 3  # for the intervals of sizes: those of two seeds hold in less than 9 of 10 cases
SAME_SIZE = 1e-9  # sizes whose ratio is closer to 1 are one
GRID = 100  # sizes at which the curve is given, beside the measured ones


class SizeEstimate(NamedTuple):
    """A size with its 95 % interval.

    An end that is infinite is open: it lies beyond the measured sizes. Without a value there is no such size
    among them; without ends there is no band. Where the draws agree on one size, the ends are the measured
    sizes next to it: the sizes resolve no more.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class FrontFit:
    """A fitted front.

    Attributes:
        curve: size, accuracy, low, high; at measured sizes and between, ascending. The band is pointwise,
            95 %, and NaN where there is none.
        knee: the size at the curve's knee, from four sizes on.
        loss: the loss of accuracy that was asked for.
        within_loss: the smallest size at which the curve is no more than the loss below its best.
        seeds: how many the band covers; 1 is none.
        images: how many the band covers; 1 is none.
        notes: what the band does not cover, and what is open.
    """

    curve: pd.DataFrame
    knee: SizeEstimate
    loss: float
    within_loss: SizeEstimate
    seeds: int
    images: int
    notes: tuple[str, ...]


def fit(
    sizes: ArrayLike, scores: ArrayLike, *, loss: float = 0.01, samples: int = 1000, seed: int = 0
) -> FrontFit:
    """Fits a monotone curve to the members of a front.

    The curve is the least-squares fit among those that do not fall with size (Barlow et al. 1972, Statistical
    Inference under Order Restrictions), joined by straight lines in log size: no shape is added to what was
    measured, and nothing is said beyond the smallest and the largest size. Its knee is the measured size
    farthest above the straight line through its ends (Das 1999, Struct. Optim. 18(2)); with three sizes none
    is given, because only the middle one could be it.

    Give it the members of the front alone: the curve is a mean, and what the front beats would pull it down.
    Give it fresh scores, of other seeds and images than those by which the members were chosen: the largest
    of many noisy scores are too high, and neither the curve nor its band knows by how much.

    The band is the same fit of the ends of the 95 % intervals of the means, by `mean_draws.draw_means`: where
    the means rise it is these intervals, and else it is no less sure (Chernozhukov et al. 2009, Biometrika
    96(3)). The intervals of sizes are percentiles over the draws, each fitted anew; those of three seeds
    hold in 93 % of cases (benchmarks/front_calibration.py). One without width is given as the measured sizes
    next to it.

    Args:
        sizes: (n,), positive, or another cost that counts in ratios; sizes
            that are equal within 1e-9 of their value are one and share their mean score.
        scores: (n,), (n, seeds) or (n, seeds, images): accuracies, or whether each image is classified
            correctly; seeds are paired.
        loss: of accuracy, below the curve's best.
        samples: draws.
        seed: of the random numbers.

    Returns:
        The fit.

    Raises:
        BadInput: there are fewer than three different sizes, sizes or scores are no numbers or out of their
            range, or their lengths differ.
    """
    values, x = as_scores(scores), as_floats(sizes, "sizes")
    if x.shape != values.shape[:1] or not (np.isfinite(x) & (x > 0)).all():
        raise BadInput(f"sizes must be positive, one for each of {len(values)} points, but got {x}")
    if not loss > 0 or samples < 1:
        raise BadInput(f"loss > 0 and samples >= 1 must hold, but got {loss} and {samples}")
    nodes, place = _distinct(np.log(x))
    counts = np.bincount(place)  # (k,)
    if len(nodes) < MIN_SIZES:
        raise BadInput(f"a fitted front needs {MIN_SIZES} different sizes or more, but got {len(nodes)}")
    averaging = (place == np.arange(len(nodes))[:, None]) / counts[:, None]  # (k, n)
    means = np.tensordot(averaging, values, axes=1)  # (k, seeds, images)

    def fitted(heights: Floats) -> Floats:  # (k,) to (k,)
        return isotonic_regression(heights, weights=counts).x.round(12)

    best, ends = fitted(means.mean(axis=(1, 2))), mean_intervals(means, samples, seed)
    grid = np.union1d(np.linspace(nodes[0], nodes[-1], GRID), nodes)
    lines = {"accuracy": best, "low": fitted(ends[0]), "high": fitted(ends[1])}
    curve = pd.DataFrame({name: np.interp(grid, nodes, line) for name, line in lines.items()})
    _, seeds, images = values.shape
    draws = []
    if seeds >= MIN_SEEDS or (seeds == 1 and images > 1):
        draws = [fitted(row) for row in draw_means(means, samples, seed)]
    knee = _estimate(nodes, _knee(nodes, best), [_knee(nodes, row) for row in draws])
    within = _estimate(nodes, _within(nodes, best, loss), [_within(nodes, row, loss) for row in draws])
    curve.insert(0, "size", np.exp(grid))
    notes = _notes(len(nodes), seeds, images, knee, within, loss)
    return FrontFit(curve, knee, loss, within, seeds, images, notes)


def _distinct(logs: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The different log sizes (k,), ascending, and the place of each of the (n,) among them."""
    ascending, place = np.unique(logs, return_inverse=True)
    is_new = np.diff(ascending, prepend=-np.inf) > SAME_SIZE
    return ascending[is_new], (np.cumsum(is_new) - 1)[place]


def _knee(nodes: Floats, values: Floats) -> float:
    """The log size of the knee of a curve through (k,) points; NaN where it has none or too few points."""
    rise = values[-1] - values[0]
    if len(nodes) < MIN_KNEE_SIZES or rise < ROUNDING:
        return np.nan
    above = (values - values[0]) / rise - (nodes - nodes[0]) / (nodes[-1] - nodes[0])
    return float(nodes[above.argmax()]) if above.max() > ROUNDING else np.nan


def _within(nodes: Floats, values: Floats, loss: float) -> float:
    """The smallest log size whose value is no more than the loss below the last; -inf where all are."""
    target = values[-1] - loss
    i = int(np.searchsorted(values, target))
    if i == 0:
        return -np.inf
    share = (target - values[i - 1]) / (values[i] - values[i - 1])
    return float(nodes[i - 1] + share * (nodes[i] - nodes[i - 1]))


def _estimate(nodes: Floats, value: float, draws: list[float]) -> SizeEstimate:
    """The size of a log size and of its draws. A draw without one counts as beyond both ends."""
    size = float(np.exp(value)) if np.isfinite(value) else np.nan
    if not draws or np.isnan(value):
        return SizeEstimate(size, np.nan, np.nan)
    ends = []
    for tail, beyond in zip(TAILS, (-np.inf, np.inf), strict=True):
        filled = np.where(np.isnan(draws), beyond, draws)
        end = np.quantile(filled, tail, method="inverted_cdf")  # a draw, which may be infinite
        ends.append(float(end) if np.isfinite(end) else beyond)
    if ends[1] - ends[0] < SAME_SIZE:
        below, above = nodes[nodes < ends[0] - SAME_SIZE], nodes[nodes > ends[1] + SAME_SIZE]
        ends = [below.max(initial=nodes[0]), above.min(initial=nodes[-1])]
    low, high = (float(np.exp(end)) if np.isfinite(end) else end for end in ends)
    return SizeEstimate(size, low, high)


def _notes(
    sizes: int, seeds: int, images: int, knee: SizeEstimate, within: SizeEstimate, loss: float
) -> tuple[str, ...]:
    notes = []
    if seeds == images == 1:
        notes.append("the fitted front has no band: it needs several seeds, or the score of each image")
    elif seeds == 1:
        notes.append("the band of the fitted front covers images alone: one seed tells nothing about others")
    elif images == 1:
        notes.append("the band of the fitted front covers seeds alone: the score of each image is not there")
    if 1 < seeds < MIN_SEEDS:
        notes.append(f"the sizes on the fitted front have no intervals: {seeds} seeds are too few")
    if sizes < MIN_KNEE_SIZES:
        notes.append(f"no knee is given: a knee needs {MIN_KNEE_SIZES} sizes or more, but there are {sizes}")
    elif np.isnan(knee.value):
        notes.append("the fitted front has no knee: it bends nowhere above the line through its ends")
    elif np.isinf([knee.low, knee.high]).any():
        notes.append("the interval of the knee is open: more than 1 in 40 draws of the curve has no knee")
    points = f"{100 * loss:.3g} point{'' if loss == 0.01 else 's'}"
    if np.isnan(within.value):
        notes.append(f"the smallest size of the fitted front is within {points} of its best")
    elif np.isinf(within.low):
        notes.append(f"the size within {points} of the best may be below the smallest one measured")
    return tuple(notes)
