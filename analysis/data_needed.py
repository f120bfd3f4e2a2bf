"""How much data an arm needs to reach the baseline's accuracy."""

import numpy as np
import pandas as pd

from ablate.analysis.pairs import Pairs
from ablate.analysis.seed_bootstrap import percentile_interval
from ablate.analysis.t_interval import Floats, simultaneous

MAX_EXTRAPOLATION = 10  # times the largest size; a line extended further says nothing


def data_needed(pairs: Pairs, draws: Floats) -> pd.DataFrame:
    """The images with which the arm reaches the baseline's accuracy at each size D, as a multiple of D.

    Args:
        pairs: the paired trials of K sizes.
        draws: (B, 2, K), as from `resample`.

    Returns:
        A row per size: `times` and its interval `low`, `high` (95 %, all sizes together), interpolated
        between the sizes on straight lines in log D. Where the arm does not reach the accuracy, `times` is
        NaN, `high` is infinite and `extrapolated` follows the line through the last two sizes, if it rises,
        up to ten times the largest size.
    """
    x, (goal, curve) = np.log10(pairs.images), pairs.accuracy.mean(axis=1)
    reached = _log_images(x, goal, curve)  # (K,)
    reached_by = _log_images(x, draws[:, 0], draws[:, 1])  # (B, K)
    low, high = percentile_interval(reached_by, len(pairs.seeds), simultaneous(len(x)))
    rise = (curve[-1] - curve[-2]) / (x[-1] - x[-2])
    beyond = x[-1] + (goal - curve[-1]) / rise if rise > 0 else np.full(len(x), np.inf)  # (K,)
    near = (reached == np.inf) & (beyond - x[-1] <= np.log10(MAX_EXTRAPOLATION))
    rows = []
    for i, size in enumerate(pairs.images):
        row = {
            "images": size,
            "times": 10 ** (reached[i] - x[i]) if np.isfinite(reached[i]) else np.nan,
            "low": 10 ** (min(low[i], x[-1]) - x[i]),
            "high": 10 ** (max(high[i], x[0]) - x[i]),
            "extrapolated": 10 ** (beyond[i] - x[i]) if near[i] else np.nan,
        }
        rows.append(row | {"text": _text(row, reached[i], pairs.images[0], pairs.images[-1])})
    return pd.DataFrame(rows)


def _text(row: dict[str, float], reached: float, least: int, most: int) -> str:
    """A row in words: "x4 (x3 to x5)"."""
    high = "unbounded" if np.isinf(row["high"]) else f"x{row['high']:.2g}"
    interval = f"(x{row['low']:.2g} to {high})"
    if np.isfinite(reached):
        return f"x{row['times']:.2g} {interval}"
    if reached < 0:
        return f"<= {least:,} images {interval}"
    extrapolated = row["extrapolated"]
    further = f"extrapolated x{extrapolated:.2g}" if np.isfinite(extrapolated) else "too far to extrapolate"
    return f"> {most:,} images, {further} {interval}"


def _log_images(x: Floats, goal: Floats, curve: Floats) -> Floats:
    """log10 of the images with which curves (..., K) over x (K,) reach each goal (..., K).

    -inf where the fewest images suffice, inf where the most do not. An accuracy that was reached stays
    reached.
    """
    best = np.maximum.accumulate(curve, axis=-1)
    after = (best[..., None, :] < goal[..., None]).sum(axis=-1)  # (..., K)
    right = after.clip(1, len(x) - 1)
    y0, y1 = np.take_along_axis(best, right - 1, -1), np.take_along_axis(best, right, -1)
    share = np.divide(goal - y0, y1 - y0, out=np.zeros_like(y0), where=y1 > y0)
    inside = x[right - 1] + share * (x[right] - x[right - 1])
    return np.where(after == 0, -np.inf, np.where(after == len(x), np.inf, inside))
