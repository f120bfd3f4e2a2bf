"""Cells of a design, compared seed by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.t_interval import mean_interval


def by_seed(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of a design's table, with a row per seed and a column per cell.

    Args:
        table: the table of a Design, a row per trial. Only its paired trials (`role` "seed") count.
        column: the column to arrange.

    Returns:
        (seeds, cells), NaN for a trial that has not completed.
    """
    rows = table[table["role"] == "seed"]
    cells = list(dict.fromkeys(rows["cell"]))
    return rows.pivot_table(column, "seed", "cell", dropna=False, sort=False).reindex(columns=cells)


def ladder(
    table: pd.DataFrame, steps: Sequence[str], reference: str | None, column: str = "test_accuracy"
) -> pd.DataFrame:
    """What each rung of a ladder reaches, its gain over the one below, and what leaving its step out costs.

    Args:
        table: the table of a Design, a row per trial.
        steps: the cells of the rungs, the base first.
        reference: a cell to compare with the top of the ladder, or None.
        column: the column to compare.

    Returns:
        A row per rung: `mean`, `gain` and `cost`, each with its t interval. Gain and cost are paired
        differences over the seeds that both cells have. `gain` is NaN for the base, `cost` without a
        leave-one-out design.
    """
    values = by_seed(table, column)
    trials = table[table["role"] == "seed"].drop_duplicates("cell").set_index("cell")
    rungs = [name for name in (*steps, reference) if name in values]
    rows: list[dict[str, Any]] = []
    for below, rung in zip([None, *rungs], rungs, strict=False):
        without = f"all but: {rung}"
        row = {
            "rung": rung,
            "n": int(values[rung].notna().sum()),
            **_with_interval(("mean", "low", "high"), values[rung]),
            **_with_interval(
                ("gain", "gain_low", "gain_high"), values[rung] - values[below] if below else [np.nan]
            ),
            **_with_interval(
                ("cost", "cost_low", "cost_high"),
                values["all"] - values[without] if without in values else [np.nan],
            ),
        }
        rows.append(row | {key: trials.loc[rung, key] for key in ("arm", "learning_rate") if key in trials})
    return pd.DataFrame(rows)


def crossing(table: pd.DataFrame, before: str, after: str, column: str = "test_accuracy") -> pd.DataFrame:
    """What more data and another arm gain, alone and together: a 2 x 2 factorial, paired over seeds.

    Args:
        table: a row per trial, with arm, seed, images and the column.
        before: an arm.
        after: another arm, such as the same precision with another recipe.
        column: the column to compare.

    Returns:
        A row per comparison with `before` at the fewest images (bought_by, images, n, mean, low, high): more
        data, the other arm, both, and the interaction: both, beyond the sum of the two. Only seeds that have
        all four corners count. Empty where the arms share fewer than two sizes.
    """
    rows = table[table["arm"].isin([before, after])]
    values = rows.pivot_table(column, "seed", ["arm", "images"])
    no_arm = pd.DataFrame()
    sizes = sorted({*values.get(before, no_arm).columns} & {*values.get(after, no_arm).columns})
    if len(sizes) < 2:
        return pd.DataFrame(columns=["bought_by", "images", "n", "mean", "low", "high"])
    least, most = sizes[0], sizes[-1]
    values = values[[(before, least), (before, most), (after, least), (after, most)]].dropna()
    start, data, other, both = (values[key].to_numpy(float) for key in values)  # each (seeds,)
    gains = {
        "data": data - start,
        after: other - start,
        "both": both - start,
        "both, beyond the sum": both - data - other + start,
    }
    about = {"images": f"{least} to {most}", "n": len(values)}
    return pd.DataFrame(
        {"bought_by": name, **about, **_with_interval(("mean", "low", "high"), gain)}
        for name, gain in gains.items()
    )


def _with_interval(names: tuple[str, str, str], values: Any) -> dict[str, float]:
    """The mean and its t interval under these three names."""
    return dict(zip(names, mean_interval(values), strict=True))
