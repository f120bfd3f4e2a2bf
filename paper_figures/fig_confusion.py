"""Figures 10 to 13: confusion matrices with counts and recall; and what the paper lacks, their difference."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from ablate.labels import left_to_right, shortened_alike
from ablate.paper_figures.confusion_info import ConfusionInfo
from ablate.paper_figures.style import LONGEST, figure, set_title_of_all, slanted

MAX_IN_COLUMN = 12  # classes of a matrix as wide as a column
LONGEST_IN_COLUMN = 20  # of the name of a class beside it
MAX_WITH_COUNTS = 25  # classes of a matrix whose counts can still be read


def draw(info: ConfusionInfo, title: str, path: Path) -> None:
    """Write path.pdf and path.png: one matrix.

    Args:
        info: Of the matrix.
        title: Above it.
        path: Of the files, without their endings.
    """
    counts, shares = info.counts, info.shares.to_numpy()
    with _matrix(path, len(counts)) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _write_counts(axes, counts, shares > 0.6, "{:d}")
        recalls = zip(_row_names(counts), np.diag(shares), strict=True)
        rows = [f"{left_to_right(name)}  {share:.0%}" for name, share in recalls]
        _label_axes(axes, rows, list(counts.columns), title)
        axes.set_ylabel("label, and its recall")


def draw_difference(difference: pd.DataFrame, changed: pd.DataFrame | None, title: str, path: Path) -> None:
    """Write path.pdf and path.png: one matrix minus another; pairs that differ on every seed are framed.

    Args:
        difference: (labels, predictions), counts.
        changed: A row a pair and seed (class, other, repeated), as `analysis.confusion.repeated` returns it.
            Both directions are tested as one, and framed alike. None where nothing was tested.
        title: Above the matrix.
        path: Of the files, without their endings.
    """
    off_diagonal = difference.to_numpy()[~np.eye(len(difference), dtype=bool)]
    limit = max(1, np.abs(off_diagonal).max(initial=0))
    pairs = [] if changed is None else changed.loc[changed["repeated"], ["class", "other"]].to_numpy()
    framed = {frozenset(pair) for pair in pairs}
    with _matrix(path, len(difference)) as axes:
        axes.imshow(difference, cmap="PuOr_r", vmin=-limit, vmax=limit)
        _write_counts(axes, difference, np.abs(difference.to_numpy()) > 0.7 * limit, "{:+d}")
        for i, label in enumerate(difference.index):
            for j, predicted in enumerate(difference.columns):
                if frozenset((label, predicted)) in framed and i != j:
                    axes.add_patch(_frame(i, j))
        _label_axes(axes, _row_names(difference), list(difference.columns), title)
        axes.set_ylabel("label")


def _matrix(path: Path, classes: int) -> AbstractContextManager[Any]:
    """Axes in a column; across the page where there are more classes than a column has room for."""
    if classes <= MAX_IN_COLUMN:
        return figure(path, 3.4)
    return figure(path, 1.8 + max(0.1 * classes, min(4.4, 0.2 * classes)), 2)


def _write_counts(axes: Any, values: pd.DataFrame, is_dark: Any, form: str) -> None:
    """is_dark: (labels, predictions), whether the cell needs white letters."""
    if len(values) > MAX_WITH_COUNTS:
        return
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        if value:
            text = {
                "ha": "center",
                "va": "center",
                "fontsize": 5,
                "color": "white" if is_dark[i, j] else "black",
            }
            axes.text(j, i, form.format(int(value)), **text)


def _label_axes(axes: Any, rows: list[str], columns: list[str], title: str) -> None:
    slanted(axes.xaxis, columns, _longest(len(columns)))
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction")
    set_title_of_all(axes.figure, title, 1 if len(rows) <= MAX_IN_COLUMN else 2)


def _row_names(matrix: pd.DataFrame) -> list[str]:
    return shortened_alike(list(matrix.index), _longest(len(matrix)))


def _longest(classes: int) -> int:
    """Letters of a name, which leave room for the matrix."""
    return LONGEST_IN_COLUMN if classes <= MAX_IN_COLUMN else LONGEST


def _frame(i: int, j: int) -> Rectangle:
    return Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1)
