"""The parameters of a trial beside its precisions, as columns of a linear model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.parameters import parameters, precisions

MAX_LEVELS = 5  # a number with more values has a curve, one with fewer an effect of its own for each value
Column = tuple[str, NDArray[np.float64]]


def covariates(records: pd.DataFrame) -> list[Column]:
    """What varies between trials beside the precisions of their layer groups.

    Args:
        records: n trials, with their `spec`.

    Returns:
        Columns (n,) of a linear model, each with the parameter that it is of, named as by `parameters`. A
        category has a column for each value but the most frequent one, and so has a number with up to five
        values. Any other number has two, linear and squared, of its logarithm where it is always positive.
        A parameter may have no effect in some trials. A column is then 0 in them and has the mean 0 over the
        others, so that a layer group is quantized at the average of its own fields. Where the precision of
        one group does not say which trials these are, such as those without any quantized group, they have a
        column of their own.
    """
    points = parameters(records)
    names = [name for name in points if name != "weights" and not name.endswith(".weights")]
    absences = _absences(points[names].notna(), precisions(list(records["spec"])))
    return absences + [(name, column) for name in names for column in _columns(points[name])]


def _absences(present: pd.DataFrame, layers: pd.DataFrame) -> list[Column]:
    """Which trials have a parameter, where that is no sum of effects of the layers' precisions.

    Args:
        present: (n, parameters), whether a trial has it.
        layers: (n, groups), precisions.
    """
    known = pd.get_dummies(layers, dtype=float).to_numpy()
    rank, columns = np.linalg.matrix_rank(known), []
    for name in present.loc[:, ~present.all()].T.drop_duplicates().index:
        column = present[name].to_numpy(dtype=float)
        more = np.column_stack([known, column])
        if np.linalg.matrix_rank(more) > rank:
            known, rank = more, rank + 1
            columns.append((name, column))
    return columns


def _columns(values: "pd.Series[Any]") -> Iterator[NDArray[np.float64]]:
    """The columns (n,) of one parameter, whose values are None where it has no effect."""
    present, numeric = values.notna().to_numpy(), values.map(_is_number).to_numpy(dtype=bool)
    numbers = values[numeric].to_numpy(dtype=float)
    levels = values.map(repr)
    if len(set(numbers)) > MAX_LEVELS:
        scale = np.log(numbers) if (numbers > 0).all() else numbers
        linear = (scale - scale.mean()) / scale.std()
        for power in (linear, linear**2):
            yield _centred(_filled(power, numeric), present)
        levels[numeric] = "a number"  # beside which there may be words, such as "none"
    else:
        levels[numeric] = [repr(number) for number in numbers]
    for level in sorted(levels[present].value_counts().index[1:]):
        yield _centred((levels == level).to_numpy(dtype=float), present)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _filled(numbers: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    column = np.zeros(len(where))
    column[where] = numbers
    return column


def _centred(column: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(present, column - column[present].mean(), 0.0)
