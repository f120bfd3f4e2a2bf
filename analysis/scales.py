"""The gap on other scales than accuracy: logits, error ratios and loss."""

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis.pairs import Pairs
from ablate.analysis.t_interval import estimate
from ablate.analysis.trend import trend

ESTIMATE = ("{}", "{}_low", "{}_high", "{}_p")
COLUMNS = ["scale", *(name.format(what) for what in ("slope", "gap") for name in ESTIMATE)]


def scales(pairs: Pairs, notes: list[str]) -> pd.DataFrame:
    """The slope of the gap, and the gap at the largest size, on each scale on which they exist.

    Args:
        pairs: the paired trials.
        notes: a note is added for each scale that does not exist.

    Returns:
        A row per scale, its gap above 0 where the arm is worse; empty for fewer than two seeds or sizes.
    """
    if min(pairs.gap.shape) < 2:
        return pd.DataFrame(columns=COLUMNS)
    full, arm = pairs.accuracy  # each (S, K)
    gaps = {"accuracy": full - arm}
    if pairs.accuracy.min() > 0 and pairs.accuracy.max() < 1:
        gaps["logit"] = special.logit(full) - special.logit(arm)
        gaps["log error ratio"] = np.log((1 - arm) / (1 - full))
    else:
        notes.append("accuracies of 0 or 1 have no logit and no error ratio")
    if pairs.loss is not None:
        gaps["loss"] = pairs.loss[1] - pairs.loss[0]
    else:
        notes.append("the gap in loss is left out, because some trials have no finite loss")
    none = (np.nan,) * len(ESTIMATE)
    rows = [
        (scale, *(estimate(trend(pairs.images, gap)) or none), *(estimate(gap[:, -1]) or none))
        for scale, gap in gaps.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
