"""What each layer group costs: quantized alone, and added last."""

import re
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.paired import by_seed
from ablate.analysis.t_interval import mean_interval

COLUMNS = ("precision", "group", "how", "n")
CELL = re.compile(r"(\w+): (all but|only|all)(?: (.+))?")  # "binary: only head"
SIGN = {"accuracy": -1, "loss": 1}  # of a change that is a cost


def sensitivities(table: pd.DataFrame) -> pd.DataFrame:
    """What each layer group costs in each precision.

    Args:
        table: the table of a sensitivity Design, a row per trial.

    Returns:
        Two rows per precision and group: `how` is "alone" (all other groups are full) and "last" (all others
        have the precision already). The first row of a precision, `how` "all", is that of all groups
        together. `accuracy_cost` is a share, `loss_cost` in nats; a positive cost means worse. They are means
        over the `n` paired seeds with t intervals; an unbounded end is NaN.
    """
    seeds = {metric: by_seed(table, metric) for metric in SIGN}  # each (seeds, cells)
    rows: list[dict[str, Any]] = []
    for cell in seeds["accuracy"]:
        if (parts := CELL.fullmatch(cell)) is None:
            continue
        precision, which, group = parts.groups()
        how, before, after = {
            "all": ("all", "full", cell),
            "only": ("alone", "full", cell),
            "all but": ("last", cell, f"{precision}: all"),
        }[which]
        costs = {metric: SIGN[metric] * (seeds[metric][after] - seeds[metric][before]) for metric in SIGN}
        row = {"precision": precision, "group": group or "", "how": how, "n": int(costs["accuracy"].count())}
        for metric, cost in costs.items():
            row |= dict(zip(_columns(metric), mean_interval(cost), strict=True))
        rows.append(row)
    columns = [*COLUMNS, *(name for metric in SIGN for name in _columns(metric))]
    return pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)


def _columns(metric: str) -> tuple[str, str, str]:
    return f"{metric}_cost", f"{metric}_low", f"{metric}_high"
