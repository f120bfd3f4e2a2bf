"""What the figures of a grid of data and updates show, in print (`fig_grid`) and on the report page."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.paper_figures.palette import colours

VIEWS_LABEL = "image views in training"


@dataclass(frozen=True)
class Surface:
    """The gap of an arm to its baseline over images (columns) and image views (rows).

    Args:
        baseline: The arm's.
        gap: (lengths, sizes), in points; NaN where there is none.
        low: Of its interval, the same.
        high: The same.
        censored: Of each size, whether the arm or its baseline still rises at the longest training.
    """

    baseline: str
    gap: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    censored: NDArray[np.bool_]


def surfaces(surface: pd.DataFrame, lengths: pd.DataFrame) -> dict[str, Surface]:
    """Compute what the surfaces show.

    Args:
        surface: A row an arm and cell (arm, baseline, images, views, gap, low, high); shares.
        lengths: A row an arm and size (arm, images, censored).

    Returns:
        By arm.
    """
    found = {}
    rising = lengths[lengths["censored"]]
    for arm, rows in surface.groupby("arm", sort=False):
        tables = {
            name: 100 * rows.pivot(index="views", columns="images", values=name)
            for name in ("gap", "low", "high")
        }
        baseline = str(rows["baseline"].iloc[0])
        censored = set(rising.loc[rising["arm"].isin([arm, baseline]), "images"])
        found[str(arm)] = Surface(baseline, **tables, censored=tables["gap"].columns.isin(censored))
    return found


@dataclass(frozen=True)
class LearningCurve:
    """The accuracy of an arm at one size of the training set, against the length of its training.

    Args:
        colour: Of the arm.
        points: A row a length: views, accuracy, low, high, in percent, with 95 % t intervals; without two
            seeds the ends are NaN.
        best: The views of the best length; NaN where it is not known.
    """

    colour: str
    points: pd.DataFrame
    best: float


def learning_curves(means: pd.DataFrame, lengths: pd.DataFrame) -> dict[int, dict[str, LearningCurve]]:
    """Compute what the learning curves show.

    Args:
        means: A row an arm and cell (arm, images, views, accuracy, low, high); shares.
        lengths: A row an arm and size (arm, images, views).

    Returns:
        By size of the training set, the smallest first, and by arm.
    """
    colour, best = colours(means["arm"]), lengths.set_index(["arm", "images"])["views"]
    in_percent = means.assign(**{name: 100 * means[name] for name in ("accuracy", "low", "high")})
    curves: dict[int, dict[str, LearningCurve]] = {}
    for images, of_size in in_percent.groupby("images"):
        for arm, points in of_size.groupby("arm", sort=False):
            curve = LearningCurve(colour[arm], points, float(best.get((arm, images), np.nan)))
            curves.setdefault(int(str(images)), {})[str(arm)] = curve
    return curves
