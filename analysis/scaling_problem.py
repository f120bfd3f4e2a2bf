"""Checks the points that a scaling law is to be fitted to."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ablate.analysis.descent import Array, Problem
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.law_bounds import bounds
from ablate.analysis.laws import LAWS, Columns, transformed


class Refused(ValueError):
    """A law cannot be fitted to these points; the message says why."""


def to_problem(law: str, predictors: Mapping[str, ArrayLike], loss: ArrayLike, delta: float) -> Problem:
    """A law and its points as a problem to minimise.

    Args:
        law: a name in `laws.LAWS`.
        predictors: what the law needs, each (n,).
        loss: (n,), above 0.
        delta: Huber's.

    Returns:
        The problem.

    Raises:
        Refused: the points break a rule; the message names the first one.
    """
    columns, y = checked(law, predictors), np.asarray(loss, dtype=float)
    _check_loss(y, len(columns["D"]))
    n, k = len(y), len(LAWS[law].parameters)
    for name, values in columns.items():
        if n and np.ptp(values) == 0:
            rule = f"the law {law!r} needs more than one {name}"
            raise Refused(f"{rule}, but all {n} points have {values[0]:g}")
    settings = len(np.unique(np.array(list(columns.values())), axis=1).T)
    if settings < k:
        rule = f"the law {law!r} has {k} parameters and needs as many different {'/'.join(columns)}"
        raise Refused(f"{rule}, but got {settings}")
    if np.ptp(np.log(y)) < ROUNDING:
        raise Refused(f"the loss is {y[0]:g} at all {n} points: no law can be fitted to it")
    x = transformed(columns)
    return Problem(LAWS[law], x, np.log(y), delta, *bounds(LAWS[law], x, y))


def checked(law: str, predictors: Mapping[str, ArrayLike]) -> Columns:
    """The predictors that a law needs, as arrays.

    Args:
        law: a name in `laws.LAWS`.
        predictors: by name, each (n,); more than the law needs are ignored.

    Returns:
        By name, each (n,).

    Raises:
        Refused: the law is unknown, or a predictor is missing or out of its range.
    """
    if law not in LAWS:
        raise Refused(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    names = LAWS[law].predictors
    if missing := [name for name in names if name not in predictors]:
        needs = f"the law {law!r} ({LAWS[law].equation}) needs {', '.join(names)}"
        raise Refused(f"{needs}; missing: {', '.join(missing)}")
    columns = {name: np.asarray(predictors[name], dtype=float) for name in names}
    for name, values in columns.items():
        if values.ndim != 1 or values.shape != columns["D"].shape:
            raise Refused(f"predictors must be rows of equal length, but {name} has shape {values.shape}")
        allowed = np.isin(values, (0, 1)) if name == "quantized" else np.isfinite(values) & (values > 0)
        if not allowed.all():
            rule, i = "0 or 1" if name == "quantized" else "above 0 and finite", np.argmin(allowed)
            raise Refused(f"{name} must be {rule}, but {name}[{i}] is {values[i]}")
    return columns


def _check_loss(loss: Array, n: int) -> None:
    """Raises Refused unless there is a loss for each of n points, and it is above 0."""
    if loss.shape != (n,):
        raise Refused(f"there must be a loss for each D, but got {n} D and losses of shape {loss.shape}")
    if (bad := np.flatnonzero(~(np.isfinite(loss) & (loss > 0)))).size:
        got = f"loss[{bad[0]}] is {loss[bad[0]]}"
        raise Refused(f"losses must be above 0 and finite, but {got}; leave such points out")
