"""Figures 10 to 13: confusion matrices with counts and recall; and what the paper lacks, their difference."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.paper_figures.style import figure

READABLE = 25  # classes whose counts can still be read


def draw(confusion: pd.DataFrame, title: str, path: Path) -> None:
    """Write path.pdf and path.png: one matrix. confusion: a row a label and prediction (label, predicted, count, share)."""
    counts, shares = _square(confusion, "count"), _square(confusion, "share")
    with figure(path, 3.4) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _cells(axes, counts, shares.to_numpy() > 0.6, "{:d}")
        labels = [f"{name}  {share:.0%}" for name, share in zip(shares.index, np.diag(shares), strict=True)]
        _frame(axes, labels, list(shares.columns), title)
        axes.set_ylabel("label, and its recall")


def draw_difference(differences: pd.DataFrame, changed: pd.DataFrame | None, title: str, path: Path) -> None:
    """Write path.pdf and path.png: one matrix minus another; pairs of classes that differ on every seed are framed.

    differences: a row a label and prediction (label, predicted, difference).
    changed: a row a pair and seed (class, other, repeated), as `analysis.confusion.repeated` gives: both directions are
    tested as one, and framed alike. None where it was not tested.
    """
    difference = _square(differences, "difference")
    most = max(1, np.abs(difference.to_numpy()[~np.eye(len(difference), dtype=bool)]).max())
    tested = [] if changed is None else changed.loc[changed["repeated"], ["class", "other"]].to_numpy()
    sure = {frozenset(pair) for pair in tested}
    with figure(path, 3.4) as axes:
        axes.imshow(difference, cmap="PuOr_r", vmin=-most, vmax=most)
        _cells(axes, difference, np.abs(difference.to_numpy()) > 0.7 * most, "{:+d}")
        for i, label in enumerate(difference.index):
            for j, predicted in enumerate(difference.columns):
                if frozenset((label, predicted)) in sure and i != j:
                    axes.add_patch(_box(i, j))
        _frame(axes, list(difference.index), list(difference.columns), title)
        axes.set_ylabel("label")


def _square(confusion: pd.DataFrame, column: str) -> pd.DataFrame:
    order = list(dict.fromkeys(confusion["label"]))
    return confusion.pivot(index="label", columns="predicted", values=column).loc[order, order]


def _cells(axes: Any, values: pd.DataFrame, light: Any, form: str) -> None:
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        if value and len(values) <= READABLE:
            colour = "white" if light[i, j] else "black"
            axes.text(j, i, form.format(int(value)), ha="center", va="center", fontsize=5, color=colour)


def _frame(axes: Any, rows: list[str], columns: list[str], title: str) -> None:
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction")
    axes.set_title(textwrap.fill(title, 44), fontsize=7)  # the matrix is narrower than the column


def _box(i: int, j: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1)
