"""The gap on other scales than accuracy: logits, error ratios and loss."""

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis.pairs import Pairs
from ablate.analysis.t_interval import Floats, estimate, simultaneous
from ablate.analysis.trend import trend

ESTIMATE = ("{}", "{}_low", "{}_high", "{}_p")
COLUMNS = ["scale", *(name.format(what) for what in ("slope", "gap") for name in ESTIMATE)]


def scales(pairs: Pairs, notes: list[str]) -> pd.DataFrame:
    """The slope of the gap, and the gap at the largest size, on each scale on which they exist.

    Args:
        pairs: the paired trials.
        notes: a note is added for each scale that does not exist.

    Returns:
        A row per scale, its gap above 0 where the arm is worse; empty for fewer than two seeds or sizes. The
        95 % intervals of all slopes and gaps hold together (Bonferroni).
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
    confidence = simultaneous(2 * len(gaps))

    def cells(values: Floats) -> tuple[float, ...]:
        return estimate(values, confidence) or (np.nan,) * len(ESTIMATE)

    rows = [(scale, *cells(trend(pairs.images, gap)), *cells(gap[:, -1])) for scale, gap in gaps.items()]
    return pd.DataFrame(rows, columns=COLUMNS)
