"""What each layer group costs: quantized alone, and added last."""

import re

import numpy as np
import pandas as pd

from ablate.analysis.contrasts import contrasts
from ablate.analysis.paired import by_seed

CELL = re.compile(r"(\w+): (all but|only|all)(?: (.+))?")  # "binary: only head"
SIGN = {"accuracy": -1, "loss": 1}  # of a change that is a cost
# fmt: off
COLUMNS = ("precision", "group", "how", "n", "contrasts", "accuracy_cost", "accuracy_low", "accuracy_high",
           "accuracy_holm", "loss_n", "loss_contrasts", "loss_cost", "loss_low", "loss_high", "loss_holm")
# fmt: on


def sensitivities(table: pd.DataFrame) -> pd.DataFrame:
    """What each layer group costs in each precision.

    Args:
        table: the table of a sensitivity Design, a row per trial.

    Returns:
        Two rows per precision and group: `how` is "alone" (all other groups are full) and "last" (all others
        have the precision already). The first row of a precision, `how` "all", is that of all groups
        together. `accuracy_cost` is a share, `loss_cost` in nats; a positive cost means worse. They are means
        over the `n` and `loss_n` paired seeds. `accuracy_low`, `accuracy_high`: t intervals that hold
        together with 95 %, over all `contrasts` costs in accuracy; `accuracy_holm`: p values against 0,
        adjusted over them. The `loss_contrasts` costs in loss are another family. An unbounded end
        is NaN, and so is a cost whose other cell the table lacks.
    """
    seeds = {metric: by_seed(table, metric) for metric in SIGN}  # each (seeds, cells)
    rows, pairs = [], []
    for cell in seeds["accuracy"]:
        if (parts := CELL.fullmatch(cell)) is None:
            continue
        precision, which, group = parts.groups()
        how, *pair = {
            "all": ("all", "full", cell),
            "only": ("alone", "full", cell),
            "all but": ("last", cell, f"{precision}: all"),
        }[which]
        rows.append({"precision": precision, "group": group or "", "how": how})
        pairs.append(pair)
    costs = [pd.DataFrame(rows, columns=["precision", "group", "how"])]
    for metric, sign in SIGN.items():
        cells = seeds[metric].reindex(columns=list({cell for pair in pairs for cell in pair}))
        family = contrasts([sign * (cells[after] - cells[before]) for before, after in pairs])
        costs.append(family.rename(columns={"mean": "cost"}).add_prefix(f"{metric}_"))
    whole = pd.concat(costs, axis=1)
    whole = whole.rename(columns={"accuracy_n": "n", "accuracy_contrasts": "contrasts"})
    return whole[list(COLUMNS)].replace([np.inf, -np.inf], np.nan)
