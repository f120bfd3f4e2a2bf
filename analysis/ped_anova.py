"""PED-ANOVA: how the values of a parameter in the best trials differ from those in all trials.

arXiv 2304.10255; for parameters that exist only in some trials: arXiv 2601.20800, theorem 4.2. The numbers
are those of `optuna.importance.PedAnovaImportanceEvaluator`, which takes one ranking of the trials at a time
and is too slow for many shuffles.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TOP = 0.1  # share of the trials that count as the best ...
MIN_TOP_TRIALS = 5  # ... and at least this many, as Optuna advises
MAX_CHOICES = 10  # a numeric parameter with more values is cut into ...
PARTS = 4  # ... this many parts of equal size: on a finer grid a few good trials always look special
PRIOR_WEIGHT = 0.1  # trials; with Optuna's 1.0 a choice that all of the best have counts as 60 % of them
TINY = 1e-12  # of a density


def best_trials(losses: NDArray[np.float64]) -> NDArray[np.intp]:
    """The rows of the best trials by losses (n,), where smaller is better: (m,), with all that tie."""
    last = max(MIN_TOP_TRIALS, int(np.ceil(TOP * len(losses)))) - 1
    return np.flatnonzero(losses <= np.partition(losses, last)[last])


def divergences(points: pd.DataFrame, best: NDArray[np.intp]) -> NDArray[np.float64]:
    """The Pearson divergence between each parameter's values in the best trials and in all trials.

    Args:
        points: (n, parameters); None where a parameter has no effect.
        best: (rankings, m), rows of the best trials by each ranking.

    Returns:
        (rankings, parameters), 0 or more, not normalised.
    """
    columns = [_divergence(pd.factorize(_cut(points[name]))[0], best) for name in points]
    return np.stack(columns, axis=1)


def _divergence(codes: NDArray[np.intp], best: NDArray[np.intp]) -> NDArray[np.float64]:
    """(rankings,) of one parameter, whose values have codes (n,), -1 where it has no effect."""
    choices, (rankings, m) = codes.max() + 1, best.shape
    cells = codes[best] + (choices + 1) * np.arange(rankings)[:, None] + 1  # (rankings, m), 0 for no effect
    counts = np.bincount(cells.ravel(), minlength=rankings * (choices + 1)).reshape(rankings, choices + 1)
    every = _density(np.bincount(codes + 1, minlength=choices + 1)[None, 1:])  # (1, choices)
    divergence = (every * (_density(counts[:, 1:]) / every - 1) ** 2).sum(axis=1)  # Pearson, arXiv 2304.10255
    present = counts[:, 1:].sum(axis=1) / m
    return present**2 / (codes >= 0).mean() * divergence  # arXiv 2601.20800, theorem 4.2


def _density(counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Optuna's Parzen estimate by counts (rankings, choices): a kernel per choice that occurs and a prior."""
    n, choices = counts.sum(axis=1, keepdims=True), counts.shape[1]
    spill = PRIOR_WEIGHT / ((counts > 0).sum(axis=1, keepdims=True) + 1)  # of a kernel, on each choice
    kernels = (counts + spill * n) / (1 + choices * spill)
    return (kernels + PRIOR_WEIGHT / choices) / (n + PRIOR_WEIGHT) + TINY


def _cut(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """A numeric parameter with many values as the number of its part; any other as it is."""
    effective = values.dropna()
    if effective.nunique() <= MAX_CHOICES or effective.map(lambda value: isinstance(value, str)).any():
        return values
    parts = pd.qcut(effective.astype(float), PARTS, labels=False, duplicates="drop")
    by_row = dict(zip(effective.index, parts.tolist(), strict=True))
    return pd.Series([by_row.get(i) for i in values.index], index=values.index, dtype=object)
