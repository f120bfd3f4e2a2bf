"""What a figure of a confusion matrix shows, in print (`fig_confusion`) and on the report page."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class ConfusionInfo:
    """One confusion matrix, (labels, predictions) both.

    Args:
        counts: How many images of a label have a prediction.
        shares: The same as a share of the label's images.
    """

    counts: pd.DataFrame
    shares: pd.DataFrame


def confusion_info(confusion: pd.DataFrame, classes: Sequence[str] | None = None) -> ConfusionInfo:
    """Compute what a figure shows.

    Args:
        confusion: A row a label and prediction (label, predicted, count, share); what has no row is 0.
        classes: Those to show, in their order; by default all that have a row.
    """
    classes = classes_of(confusion) if classes is None else classes
    return ConfusionInfo(square(confusion, "count", classes), square(confusion, "share", classes))


def classes_of(confusion: pd.DataFrame) -> list[str]:
    """The classes that have a row, in their order."""
    return list(dict.fromkeys([*confusion["label"], *confusion["predicted"]]))


def square(cells: pd.DataFrame, column: str, classes: Sequence[str]) -> pd.DataFrame:
    """A matrix (labels, predictions) of one column of its cells.

    Args:
        cells: A row a label and prediction (label, predicted, and the column).
        column: Whose values to take; what has no row is 0.
        classes: Those to show, in their order.
    """
    order = list(classes)
    kept = cells[cells["label"].isin(order) & cells["predicted"].isin(order)]
    matrix = kept.pivot(index="label", columns="predicted", values=column)
    return matrix.reindex(index=order, columns=order).fillna(0).astype(cells[column].dtype)
