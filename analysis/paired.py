"""Cells of a design held against each other seed by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


def mean(values: ArrayLike) -> tuple[float, float, float]:
    """The mean of n values (n,) and its t interval; an unbounded one where n is 1. NaN are left out."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if len(found) == 0:
        return (np.nan, np.nan, np.nan)
    centre = float(found.mean())
    if len(found) == 1:
        return (centre, -np.inf, np.inf)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * stats.sem(found)
    return (centre, centre - float(half), centre + float(half))


def by_seed(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """(seeds, cells) of a column of a Design's table: its paired trials, NaN where one has not ended well."""
    rows = table[table["role"] == "seed"]
    return rows.pivot_table(column, "seed", "cell", dropna=False, sort=False).reindex(
        columns=list(dict.fromkeys(rows["cell"]))
    )


def ladder(
    table: pd.DataFrame, steps: Sequence[str], reference: str | None, column: str = "test_accuracy"
) -> pd.DataFrame:
    """A row a rung: its mean with interval, the paired gain over the rung below, and what leaving its step out costs.

    table: that of a Design. steps: the rungs' cells, the base first. `gain` is NaN for the base and `cost` without a
    leave-one-out design; both are paired differences over the seeds that both cells have. The reference's gain is over
    the top of the ladder.
    """
    found = by_seed(table, column)
    tuned = table[table["role"] == "seed"].drop_duplicates("cell").set_index("cell")
    rungs = [name for name in (*steps, reference) if name in found]
    rows: list[dict[str, Any]] = []
    for below, rung in zip([None, *rungs], rungs, strict=False):
        row: dict[str, Any] = {"rung": rung, "n": int(found[rung].notna().sum())}
        row |= dict(zip(("mean", "low", "high"), mean(found[rung]), strict=True))
        gain = found[rung] - found[below] if below else [np.nan]
        row |= dict(zip(("gain", "gain_low", "gain_high"), mean(gain), strict=True))
        without = f"all but: {rung}"
        cost = found["all"] - found[without] if without in found else [np.nan]
        row |= dict(zip(("cost", "cost_low", "cost_high"), mean(cost), strict=True))
        rows.append(row | {key: tuned.loc[rung, key] for key in ("arm", "learning_rate") if key in tuned})
    return pd.DataFrame(rows)


def crossing(table: pd.DataFrame, before: str, after: str, column: str = "test_accuracy") -> pd.DataFrame:
    """What more data buy one arm, what another arm buys at the fewest data, and what both buy together; and their sum's rest.

    table: arm, seed, images and the column, a row a trial; `before` and `after`: two arms, as of one precision under two
    recipes. A row each (bought_by, images, n, mean, low, high), paired over the seeds that have all four corners.
    """
    rows = table[table["arm"].isin([before, after])]
    found = rows.pivot_table(column, "seed", ["arm", "images"])
    sizes = sorted({*found.get(before, pd.DataFrame()).columns} & {*found.get(after, pd.DataFrame()).columns})
    if len(sizes) < 2:
        return pd.DataFrame(columns=["bought_by", "images", "n", "mean", "low", "high"])
    least, most = sizes[0], sizes[-1]
    found = found[[(before, least), (before, most), (after, least), (after, most)]].dropna()
    start, data, other, both = (found[key].to_numpy(float) for key in found)
    gains = {
        "data": data - start,
        after: other - start,
        "both": both - start,
        "both, beyond the sum": both - data - other + start,
    }
    return pd.DataFrame(
        [
            {"bought_by": name, "images": f"{least} to {most}", "n": len(found)}
            | dict(zip(("mean", "low", "high"), mean(gain), strict=True))
            for name, gain in gains.items()
        ]
    )
