"""Cells of a design, compared seed by seed."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.contrasts import contrasts


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
        A row per rung: `mean`, `gain` and `cost`, each with its number of values and its t interval. The
        intervals of the `means` means hold together with 95 %, and so do those of the `contrasts` gains and
        costs, which are one family; `gain_holm` and `cost_holm` are p values against 0, adjusted over it.
        Gain and cost are paired differences over the seeds that both cells have. `gain` is NaN for the base,
        `cost` without a leave-one-out design.
    """
    values = by_seed(table, column)
    trials = table[table["role"] == "seed"].drop_duplicates("cell").set_index("cell")
    rungs = [name for name in (*steps, reference) if name in values]
    gains = {rung: values[rung] - values[below] for below, rung in pairwise(rungs)}
    without = {rung: f"all but: {rung}" for rung in rungs}
    costs = {rung: values["all"] - values[cell] for rung, cell in without.items() if cell in values}
    means = contrasts([values[rung] for rung in rungs]).set_axis(rungs).rename(columns={"contrasts": "means"})
    family = contrasts([*gains.values(), *costs.values()])
    parts = [means.drop(columns="holm")]
    for name, rows, of in (("gain", family[: len(gains)], gains), ("cost", family[len(gains) :], costs)):
        names = {"mean": name} | {key: f"{name}_{key}" for key in ("low", "high", "n", "holm")}
        parts.append(rows.rename(columns=names)[[*names.values()]].set_axis(list(of)).reindex(rungs))
    parts.append(pd.DataFrame({"contrasts": family["contrasts"].max() if len(family) else 0}, index=rungs))
    parts.append(trials.loc[rungs, [key for key in ("arm", "learning_rate") if key in trials]])
    return pd.concat(parts, axis=1).rename_axis("rung").reset_index()


def crossing(
    table: pd.DataFrame, pairs: Sequence[tuple[str, str]], column: str = "test_accuracy"
) -> pd.DataFrame:
    """What more data and another arm gain, alone and together: 2 x 2 factorials, paired over seeds.

    Args:
        table: a row per trial, with arm, seed, images and the column.
        pairs: arms to cross with data: one, and another, such as the same precision with another recipe.
        column: the column to compare.

    Returns:
        Four rows per pair, each a comparison with its first arm, `arm`, at the fewest images: `bought_by`
        more data, the other arm, both, and the interaction: both, beyond the sum of the two. `images`: from
        the fewest to the most that both arms have. Only the `n` seeds that have all four corners count.
        `mean`, `low`, `high`, `holm` and `contrasts` as in `contrasts.contrasts`: all rows are one family. A
        pair that shares fewer than two sizes has no row.
    """
    about: list[dict[str, Any]] = []
    gains: list[NDArray[np.float64]] = []
    values, no_arm = table.pivot_table(column, "seed", ["arm", "images"]), pd.DataFrame()
    for before, after in pairs:
        sizes = sorted({*values.get(before, no_arm).columns} & {*values.get(after, no_arm).columns})
        if len(sizes) < 2:
            continue
        least, most = sizes[0], sizes[-1]
        corners = values[[(before, least), (before, most), (after, least), (after, most)]].dropna()
        start, data, other, both = (corners[key].to_numpy(float) for key in corners)  # each (seeds,)
        gains += [data - start, other - start, both - start, both - data - other + start]
        names = ("data", after, "both", "both, beyond the sum")
        about += [{"bought_by": name, "images": f"{least} to {most}", "arm": before} for name in names]
    head = pd.DataFrame(about, columns=["bought_by", "images", "arm"])
    return pd.concat([head, contrasts(gains)], axis=1)
