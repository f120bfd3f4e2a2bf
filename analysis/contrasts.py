"""Several contrasts that stand together: simultaneous t intervals, and p values adjusted for their number."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ablate.analysis.significance import holm
from ablate.analysis.t_interval import Estimate, Floats, estimate, simultaneous

COLUMNS = ("n", "mean", "low", "high", "holm", "contrasts")
RULE = "a contrast counts as different from 0 where its simultaneous 95 % interval excludes 0"


def contrasts(family: Sequence[ArrayLike]) -> pd.DataFrame:
    """The mean of each contrast of a family, beside how sure it is in view of all of them.

    Args:
        family: the values of each contrast, such as its paired differences, (n,); what is not finite is left
            out, and counted by `n`.

    Returns:
        A row per contrast: `n` values, their `mean`, `low` and `high`: the ends of t intervals that hold
        together with 95 %, each with the variance of its own values; `holm`: the p value of the mean against
        0, adjusted by Holm; `contrasts`: how many have two values or more, and so belong to the family. Where
        values are fewer or all equal there is no noise to estimate an interval from: its ends are infinite
        (NaN without a value) and p is NaN.
    """
    finite = [values[np.isfinite(values)] for values in (np.asarray(each, dtype=float) for each in family)]
    tested = np.array([len(values) > 1 for values in finite], dtype=bool)
    confidence = simultaneous(int(tested.sum()))
    rows = [estimate(values, confidence) or _without_interval(values) for values in finite]
    table = pd.DataFrame(rows, columns=["mean", "low", "high", "p"], dtype=float)
    table["n"], table["contrasts"] = [len(values) for values in finite], int(tested.sum())
    table.loc[tested, "holm"] = holm(table.loc[tested, "p"])
    return table.reindex(columns=list(COLUMNS))


def excludes_zero(low: "pd.Series[float]", high: "pd.Series[float]") -> "pd.Series[bool]":
    """Which intervals (k,) exclude 0; none whose ends are unknown."""
    return (low > 0) | (high < 0)


def _without_interval(values: Floats) -> Estimate:
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan, np.nan)
    return Estimate(float(values.mean()), -np.inf, np.inf, np.nan)
