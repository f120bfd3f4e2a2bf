"""The change of a gap over two segments of the data axis, with simultaneous intervals."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.pairs import Pairs
from ablate.analysis.significance import minimum_detectable_effect
from ablate.analysis.t_interval import ROUNDING, Floats, t_quantile
from ablate.analysis.verdict_rules import Rules

MANY_SEEDS = 8  # from here on Satterthwaite's degrees of freedom cover as they should
LEAST_DECADES = 0.49  # of a segment: half a decade, less the rounding of sizes such as 200 and 632
COLUMNS = (
    "contrast",
    "from_images",
    "to_images",
    "value",
    "low",
    "high",
    "margin",
    "shows",
    "smallest",
    "error",
    "freedom",
    "seeds",
)


class Mean(NamedTuple):
    """A mean over seeds and test images, its standard error with its degrees of freedom, and the seeds."""

    value: float
    error: float
    freedom: float
    seeds: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two-sided t interval with this confidence."""
        half = t_quantile(self.freedom, confidence) * self.error
        return self.value - half, self.value + half


def mean_over(values: Floats, cells: Floats | None = None) -> Mean | None:
    """The mean of a quantity over seeds, and over test images where it is known for each of them.

    Seeds and images are crossed random effects: the variance of the mean is that between seeds plus that
    between images less that of their interaction, which both contain (Cameron, Gelbach and Miller 2011, J.
    Bus. Econ. Stat. 29(2), eq. 2.11). Degrees of freedom are Satterthwaite's (1946). For fewer than eight
    seeds they are those of the seeds alone, since intervals by Satterthwaite's then cover too seldom.

    Args:
        values: (S,), a value per seed.
        cells: (S, N), by seed and test image; its means over the images are the values.

    Returns:
        The mean; None for fewer than two seeds, or where there is no noise to estimate an error from.
    """
    n, value = len(values), float(values.mean()) if len(values) else np.nan
    if n < 2:
        return None
    seeds = float(values.var(ddof=1)) / n
    if cells is None:
        return Mean(value, np.sqrt(seeds), n - 1, n) if seeds > ROUNDING**2 else None
    by_image, count = cells.mean(axis=0, dtype=float), cells.shape[1]
    images = float(by_image.var(ddof=1)) / count
    residual = cells - values[:, None] - by_image + value  # (S, N)
    both = float((residual**2).sum()) / ((n - 1) * (count - 1)) / (n * count)
    variance = max(seeds + images - both, seeds, images)
    if variance <= ROUNDING**2:
        return None
    freedom = variance**2 / (seeds**2 / (n - 1) + images**2 / (count - 1)) if n >= MANY_SEEDS else n - 1.0
    return Mean(value, np.sqrt(variance), freedom, n)


def cut(images: NDArray[np.int64]) -> int | None:
    """Where the data axis is cut into two segments.

    Args:
        images: (K,) sizes, ascending.

    Returns:
        The index of the size that is nearest to the middle in log D, among those that leave half a decade or
        more on both sides; None where there is none.
    """
    if not len(images):
        return None
    x = np.log10(images)
    inside = np.flatnonzero((x - x[0] >= LEAST_DECADES) & (x[-1] - x >= LEAST_DECADES))
    return int(inside[np.abs(x[inside] - (x[0] + x[-1]) / 2).argmin()]) if len(inside) else None


def changes(pairs: Pairs, rules: Rules) -> pd.DataFrame:
    """How the gap changes over both segments and in all, and how large it is at the largest size.

    Args:
        pairs: the paired trials of S seeds and K sizes.
        rules: the margins, and the confidence of each interval.

    Returns:
        A row per contrast: "first", "second" and "whole" are changes of the gap from one size to another;
        "bend" is the change per decade over the second segment less that over the first; "gap" is the gap at
        the largest size (its `from_images` is 0). These five are `rules.intervals`. "between" is the change
        from the smallest size to one within a segment: it is not among them, and can only keep a verdict from
        being "constant". `value`, `low`, `high` and `margin` are accuracies. `shows` says what the interval
        shows: "falls", "rises", "stays" (within +-margin) or "", of the bend "bends", of the gap that the arm
        is "behind", "ahead", or that there is "none". `smallest`: what would be told from 0 with
        `rules.power`. Empty where there are no two segments, or no noise in one of the contrasts.
    """
    middle, last = cut(pairs.images), len(pairs.images) - 1
    rows: list[dict[str, Any]] = []
    if middle is not None and len(pairs.seeds) > 1:
        between = [("between", 0, k) for k in range(1, last) if k != middle]
        spans = [("first", 0, middle), ("second", middle, last), ("whole", 0, last), *between]
        changed = [_change(pairs, rules, *span) for span in spans]
        found = [*changed, _bend(pairs, rules, middle), _gap(pairs, rules)]
        rows = [row for row in found if row]
        rows = rows if len(rows) == len(found) else []
    return pd.DataFrame(rows, columns=list(COLUMNS))


def gap_mean(pairs: Pairs, end: int, start: int | None = None) -> Mean | None:
    """The mean gap at a size, or its change from another size, by their indices."""
    weights = np.zeros(len(pairs.images))
    weights[end] = 1.0
    if start is not None:
        weights[start] = -1.0
    return _weighted(pairs, weights)


def _weighted(pairs: Pairs, weights: Floats) -> Mean | None:
    """The mean of a weighted sum of gaps, by weights (K,), over the seeds that have the sizes it needs."""
    used = weights != 0
    rows = np.isfinite(pairs.gap[:, used]).all(axis=1)
    cells = None
    if pairs.correct is not None:
        correct = pairs.correct[:, rows][:, :, used]
        cells = np.einsum("skn,k->sn", correct[0] - correct[1], weights[used])
    return mean_over(pairs.gap[rows][:, used] @ weights[used], cells)


def _bend(pairs: Pairs, rules: Rules, middle: int) -> dict[str, Any] | None:
    x, weights = np.log10(pairs.images), np.zeros(len(pairs.images))
    weights[[0, middle]] += np.array([1, -1]) / (x[middle] - x[0])
    weights[[middle, -1]] += np.array([-1, 1]) / (x[-1] - x[middle])
    mean = _weighted(pairs, weights)
    about = {
        "contrast": "bend",
        "from_images": int(pairs.images[0]),
        "to_images": int(pairs.images[-1]),
    }
    names = {"rises": "bends", "falls": "bends", "stays": "", "": ""}
    return about | _judged(mean, np.nan, rules, names) if mean else None


def _change(pairs: Pairs, rules: Rules, contrast: str, start: int, end: int) -> dict[str, Any] | None:
    mean = gap_mean(pairs, end, start)
    until = _segment_end(pairs.images, end)
    decades = float(np.log10(pairs.images[until] / pairs.images[start]))
    error = float((1 - np.nanmean(pairs.accuracy[0], axis=0))[[start, until]].min())  # of the baseline
    margin = min(rules.slope_margin * decades, rules.relative_margin * error)
    about = {
        "contrast": contrast,
        "from_images": int(pairs.images[start]),
        "to_images": int(pairs.images[end]),
    }
    names = {"falls": "", "rises": "", "stays": "stays", "": ""} if contrast == "between" else None
    return about | _judged(mean, margin, rules, names) if mean else None


def _segment_end(images: NDArray[np.int64], k: int) -> int:
    """The index of the end of the segment that a size is in. A size within it has the margin of the end."""
    middle = cut(images) or 0
    return middle if 0 < k <= middle else len(images) - 1


def _gap(pairs: Pairs, rules: Rules) -> dict[str, Any] | None:
    mean = gap_mean(pairs, len(pairs.images) - 1)
    error = float(1 - np.nanmean(pairs.accuracy[0][:, -1]))
    margin = min(rules.margin, rules.relative_margin * error)
    about = {"contrast": "gap", "from_images": 0, "to_images": int(pairs.images[-1])}
    names = {"rises": "behind", "falls": "ahead", "stays": "none", "": ""}
    return about | _judged(mean, margin, rules, names) if mean else None


def _judged(mean: Mean, margin: float, rules: Rules, names: dict[str, str] | None = None) -> dict[str, Any]:
    """The rest of a row of `changes`. The sign comes before equivalence. names: other words for `shows`."""
    low, high = mean.interval(rules.confidence)
    shows = "falls" if high < 0 else "rises" if low > 0 else "stays" if max(-low, high) < margin else ""
    smallest = minimum_detectable_effect(mean.error, mean.freedom, 1 - rules.confidence, rules.power)
    shows = names[shows] if names else shows
    bounds = {"value": mean.value, "low": low, "high": high, "margin": margin, "shows": shows}
    return {**bounds, "smallest": smallest, "error": mean.error, "freedom": mean.freedom, "seeds": mean.seeds}


def turns(pairs: Pairs, rules: Rules) -> list[tuple[int, int]]:
    """The segments (from, to images) within which the gap both falls and rises, from one size to the next."""
    if (middle := cut(pairs.images)) is None:
        return []
    found = []
    for start, end in ((0, middle), (middle, len(pairs.images) - 1)):
        steps = [_change(pairs, rules, "step", k, k + 1) for k in range(start, end)]
        if {"falls", "rises"} <= {step["shows"] for step in steps if step}:
            found.append((int(pairs.images[start]), int(pairs.images[end])))
    return found
