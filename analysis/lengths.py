"""A grid of data and updates: how long each arm has to be trained, and what either does to the gap."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ablate.analysis.t_interval import Floats, estimate, mean_interval, simultaneous

GAIN = 0.005  # in accuracy: an arm that gains as much from its longest training has not arrived
FACTOR = 4  # of length, over which it is gained
CELL = ["images", "views"]
LENGTHS = ["arm", "images", "views", "accuracy", "longest", "last_gain", "censored"]
SURFACE = ["arm", "baseline", *CELL, "n", "gap", "low", "high"]
LEARNING = ["arm", *CELL, "n", "accuracy", "low", "high"]
EFFECTS = ["arm", "baseline", "axis", "n", "cells", "per_decade", "low", "high"]


def best_lengths(trials: pd.DataFrame, lengths: Sequence[int], gain: float = GAIN) -> pd.DataFrame:
    """The best length of each arm at each size of the training set, by trials on tuning seeds.

    Args:
        trials: A row a trial: arm, images, views (of images, in training), seed, accuracy in [0, 1].
        lengths: All views of the grid.
        gain: In mean accuracy, over the last factor of four of the length: with as much an arm may rise
            further, and its size is censored.

    Returns:
        A row an arm and size: arm, images, the views of the highest mean accuracy (the fewest of equals),
        that accuracy, the longest views, the last gain, and whether it is censored. Means are over the seeds
        that have all lengths; without such a seed they are NaN. The last gain is that of the longest training
        over the longest one of at most a quarter of it; NaN where there is none. A size whose last gain is
        NaN is censored.
    """
    rows, every = [], sorted(lengths)
    before = max((views for views in every if FACTOR * views <= every[-1]), default=None)
    for (arm, images), group in trials.groupby(["arm", "images"], sort=False):
        means = group.pivot(index="seed", columns="views", values="accuracy").reindex(columns=every)
        means = means.dropna().mean()
        best = means.idxmax() if means.notna().all() else np.nan
        last = means.iloc[-1] - means.get(before, np.nan)
        rows.append((arm, images, best, means.max(), every[-1], last, not last < gain))
    return pd.DataFrame(rows, columns=LENGTHS)


def at_best_length(trials: pd.DataFrame, lengths: pd.DataFrame) -> pd.DataFrame:
    """The trials of each arm and size that have its best length.

    Args:
        trials: A row a trial, with arm, images and views.
        lengths: As of `best_lengths`.

    Returns:
        These rows.
    """
    return trials.merge(lengths[["arm", *CELL]], on=["arm", *CELL])


def learning(trials: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy of each arm in each cell.

    Args:
        trials: A row a paired trial: arm, images, views, accuracy in [0, 1].

    Returns:
        A row an arm and cell: arm, images, views, n, accuracy, and its 95 % t interval; NaN with one seed.
    """
    rows = []
    for cell, group in trials.groupby(["arm", *CELL], sort=False):
        mean, low, high = mean_interval(group["accuracy"])
        ends = (low, high) if len(group) > 1 else (np.nan, np.nan)
        rows.append((*cell, len(group), mean, *ends))
    return pd.DataFrame(rows, columns=LEARNING).sort_values(CELL, kind="stable", ignore_index=True)


def surface(trials: pd.DataFrame, families: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The gap of each arm to its baseline at each size and length.

    Args:
        trials: A row a paired trial: arm, images, views, seed, accuracy in [0, 1].
        families: The arms by their baseline.

    Returns:
        A row an arm and cell: arm, baseline, images, views, n (paired seeds), gap (baseline - arm), and its t
        interval, which holds together with those of all cells of the family (Bonferroni); NaN without two
        seeds that differ.
    """
    rows = []
    for baseline, arms in families.items():
        gaps = {arm: _gaps(trials, arm, baseline) for arm in arms}
        confidence = simultaneous(sum(len(of_arm.columns) for of_arm in gaps.values()))
        for arm, of_arm in gaps.items():
            for cell, column in of_arm.items():
                values = column.dropna().to_numpy(float)
                found = estimate(values, confidence)
                ends = (found.low, found.high) if found else (np.nan, np.nan)
                mean = values.mean() if len(values) else np.nan
                rows.append((arm, baseline, *cell, len(values), mean, *ends))
    return pd.DataFrame(rows, columns=SURFACE)


def effects(trials: pd.DataFrame, families: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """What ten times the images, and ten times the updates, change in the gap, on average over the grid.

    For each seed the plane gap = c + a log10 D + b log10 T is fitted by least squares; a and b are averaged.
    The true surface may be no plane: these are its mean slopes over the grid, and no law beyond it.

    Args:
        trials: A row a paired trial: arm, images, views, seed, accuracy in [0, 1].
        families: The arms by their baseline.

    Returns:
        A row an arm and axis ("images" or "views"): arm, baseline, axis, n (seeds with all cells), how many
        cells there are, the mean slope per decade, and its t interval, which holds together with all of the
        family (Bonferroni). Cells of which no pair is complete are left out.
    """
    rows = []
    for baseline, arms in families.items():
        confidence = simultaneous(len(CELL) * len(arms))
        for arm in arms:
            gaps = _gaps(trials, arm, baseline).dropna()
            slopes = _slopes(gaps)
            for axis, values in zip(CELL, slopes.T, strict=True):
                found = estimate(values, confidence)
                ends = (found.low, found.high) if found else (np.nan, np.nan)
                mean = values.mean() if len(values) else np.nan
                rows.append((arm, baseline, axis, len(values), len(gaps.columns), mean, *ends))
    return pd.DataFrame(rows, columns=EFFECTS)


def _gaps(trials: pd.DataFrame, arm: str, baseline: str) -> pd.DataFrame:
    """(seeds, cells) the gaps of paired trials, NaN where a seed lacks one of the two."""
    accuracy = trials.pivot(index=["arm", "seed"], columns=CELL, values="accuracy").sort_index(axis=1)
    known = accuracy.index.get_level_values("arm")
    if not {arm, baseline} <= {*known}:
        return pd.DataFrame(columns=accuracy.columns, dtype=float)
    gaps = accuracy.loc[baseline] - accuracy.loc[arm]
    return gaps.dropna(how="all", axis=0).dropna(how="all", axis=1)


def _slopes(gaps: pd.DataFrame) -> Floats:
    """(seeds, 2) the slopes of the plane through each seed's gaps; none where no plane is determined."""
    logs = np.log10(np.array([*gaps.columns], float).reshape(-1, 2))
    design = np.column_stack([np.ones(len(logs)), logs])
    if len(logs) < 3 or np.linalg.matrix_rank(design) < 3:
        return np.empty((0, 2))
    return np.linalg.lstsq(design, gaps.to_numpy(float).T, rcond=None)[0][1:].T
