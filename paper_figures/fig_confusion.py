"""Figures 10 to 13: confusion matrices with counts and recall; and what the paper lacks, their difference."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.labels import shortened_alike
from ablate.paper_figures.style import LETTERS, LONGEST, figure, named, set_title

COLUMN = 12  # classes of a matrix as wide as a column
READABLE = 25  # classes whose counts can still be read


def draw(confusion: pd.DataFrame, title: str, path: Path, classes: Sequence[str] | None = None) -> None:
    """Write path.pdf and path.png: one matrix.

    confusion: a row a label and prediction (label, predicted, count, share); what has no row is 0. classes: those to draw,
    in their order; by default all that have a row.
    """
    counts, shares = _square(confusion, "count", classes), _square(confusion, "share", classes)
    with _matrix(path, len(counts)) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _cells(axes, counts, shares.to_numpy() > 0.6, "{:d}")
        recalls = zip(shortened_alike(list(counts.index), LONGEST), np.diag(shares), strict=True)
        labels = [f"{name}  {share:.0%}" for name, share in recalls]
        _frame(axes, labels, list(shares.columns), title)
        axes.set_ylabel("label, and its recall")


def draw_difference(
    differences: pd.DataFrame,
    changed: pd.DataFrame | None,
    title: str,
    path: Path,
    classes: Sequence[str] | None = None,
) -> None:
    """Write path.pdf and path.png: one matrix minus another; pairs of classes that differ on every seed are framed.

    differences: a row a label and prediction (label, predicted, difference).
    changed: a row a pair and seed (class, other, repeated), as `analysis.confusion.repeated` gives: both directions are
    tested as one, and framed alike. None where it was not tested. classes: as of `draw`.
    """
    difference = _square(differences, "difference", classes)
    most = max(1, np.abs(difference.to_numpy()[~np.eye(len(difference), dtype=bool)]).max(initial=0))
    tested = [] if changed is None else changed.loc[changed["repeated"], ["class", "other"]].to_numpy()
    sure = {frozenset(pair) for pair in tested}
    with _matrix(path, len(difference)) as axes:
        axes.imshow(difference, cmap="PuOr_r", vmin=-most, vmax=most)
        _cells(axes, difference, np.abs(difference.to_numpy()) > 0.7 * most, "{:+d}")
        for i, label in enumerate(difference.index):
            for j, predicted in enumerate(difference.columns):
                if frozenset((label, predicted)) in sure and i != j:
                    axes.add_patch(_box(i, j))
        _frame(axes, shortened_alike(list(difference.index), LONGEST), list(difference.columns), title)
        axes.set_ylabel("label")


def _matrix(path: Path, classes: int) -> AbstractContextManager[Any]:
    """Axes in a column; across the page where there are more classes than a column has room for."""
    return (
        figure(path, 3.4)
        if classes <= COLUMN
        else figure(path, 1.8 + max(0.1 * classes, min(4.4, 0.2 * classes)), 2)
    )


def _square(confusion: pd.DataFrame, column: str, classes: Sequence[str] | None) -> pd.DataFrame:
    order = (
        list(dict.fromkeys([*confusion["label"], *confusion["predicted"]]))
        if classes is None
        else list(classes)
    )
    kept = confusion[confusion["label"].isin(order) & confusion["predicted"].isin(order)]
    square = kept.pivot(index="label", columns="predicted", values=column)
    return square.reindex(index=order, columns=order).fillna(0).astype(confusion[column].dtype)


def _cells(axes: Any, values: pd.DataFrame, light: Any, form: str) -> None:
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        if value and len(values) <= READABLE:
            colour = "white" if light[i, j] else "black"
            axes.text(j, i, form.format(int(value)), ha="center", va="center", fontsize=5, color=colour)


def _frame(axes: Any, rows: list[str], columns: list[str], title: str) -> None:
    named(axes.xaxis, columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction")
    set_title(
        axes, title, 44 if len(rows) <= COLUMN else 2 * LETTERS
    )  # the matrix is narrower than the column


def _box(i: int, j: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1)
