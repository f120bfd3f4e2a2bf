"""What each layer group costs: alone in a low precision, and alone left out of it."""

import re

import numpy as np
import pandas as pd

from ablate.analysis import paired

COLUMNS = ("precision", "group", "how", "n")


def sensitivities(table: pd.DataFrame) -> pd.DataFrame:
    """A row a precision and a layer group, twice: what the group costs `alone` (all else full) and `last` (all else low).

    table: that of a sensitivity Design. `accuracy_cost` is a share, `loss_cost` in nats; both are positive where a group
    costs. They are means over the paired seeds with t intervals. The first row of a precision is that of all groups
    together, `how` "all".
    """
    by_seed = {name: paired.by_seed(table, name) for name in ("accuracy", "loss")}
    rows = []
    for cell in by_seed["accuracy"]:
        if (parts := re.fullmatch(r"(\w+): (all but|only|all)(?: (.+))?", cell)) is None:
            continue
        kind, which, group = parts.groups()
        how, before, after = {
            "all": ("all", "full", cell),
            "only": ("alone", "full", cell),
            "all but": ("last", cell, f"{kind}: all"),
        }[which]
        row = {"precision": kind, "group": group or "", "how": how}
        for name, sign in (("accuracy", -1), ("loss", 1)):
            cost = sign * (by_seed[name][after] - by_seed[name][before])
            row |= {"n": int(cost.notna().sum())} if name == "accuracy" else {}
            row |= dict(zip((f"{name}_cost", f"{name}_low", f"{name}_high"), paired.mean(cost), strict=True))
        rows.append(row)
    return pd.DataFrame(
        rows, columns=[*COLUMNS, *(f"{n}{end}" for n in by_seed for end in ("_cost", "_low", "_high"))]
    ).replace([np.inf, -np.inf], np.nan)
