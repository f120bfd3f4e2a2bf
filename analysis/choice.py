"""Chooses between scaling laws, and says what the points leave undecided."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.aicc import aicc
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.laws import LAWS
from ablate.analysis.scaling import Fit, fit
from ablate.analysis.scaling_problem import Refused

Array = NDArray[np.float64]
T = TypeVar("T")
# Laws within 2 of the least AICc have substantial support (Burnham and Anderson 2002, section 2.6).
SUBSTANTIAL = 2.0


@dataclass(frozen=True)
class Choice:
    """Which laws the points support.

    Attributes:
        best: the one law that both AICc and the held-out points support; None where there is not exactly one.
        table: a row per law: `aicc`, `delta_aicc`, `held_out` (mean absolute log error at the largest D,
            fitted without it), `reason` where one of them is missing, `flags` of the fit.
        undecided: what could not be decided, in sentences.
        fits: by law, without those that were refused.
    """

    best: str | None
    table: pd.DataFrame
    undecided: tuple[str, ...]
    fits: dict[str, Fit]


def choose(
    laws: Sequence[str],
    predictors: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    huber_delta: float = 1e-3,
    samples: int = 0,
) -> Choice:
    """Compares laws on the same n points by AICc and by holding out the largest D.

    Args:
        laws: two or more names in `laws.LAWS`.
        predictors: as for `scaling.fit`, each (n,).
        loss: (n,).
        huber_delta: as for `scaling.fit`.
        samples: of the bootstrap of each fit.

    Returns:
        The choice.

    Raises:
        Refused: there are fewer than two laws, or none can be fitted.
    """
    if len(set(laws)) < 2:
        raise Refused(f"a choice needs two laws or more, but got {', '.join(laws) or 'none'}")
    fits, errors, rows, undecided = {}, {}, [], []
    for law in laws:
        fitted, reason = _attempt(fit, law, predictors, loss, huber_delta=huber_delta, samples=samples)
        criterion, held_out, reasons = None, None, [reason]
        if fitted:
            fits[law] = fitted
            criterion, no_criterion = _attempt(aicc, fitted)
            held_out, no_held_out = _attempt(_held_out, law, predictors, loss, huber_delta)
            reasons = [no_criterion, no_held_out]
        if held_out is not None:
            errors[law] = held_out
        undecided += [f"{law}: {reason}" for reason in reasons if reason]
        rows.append(_row(law, fitted, criterion, held_out, reasons))
    if not fits:
        raise Refused("no law can be fitted: " + undecided[0])
    table = pd.DataFrame(rows).set_index("law")
    table.insert(2, "delta_aicc", table["aicc"] - table["aicc"].min())
    supported = list(table.index[table["delta_aicc"] <= SUBSTANTIAL])
    best, doubts = _best(supported, _indistinct(errors))
    return Choice(best, table, (*undecided, *doubts), fits)


def _row(
    law: str, fitted: Fit | None, criterion: float | None, held_out: Array | None, reasons: list[str]
) -> dict[str, Any]:
    """A row of `Choice.table`."""
    return {
        "law": law,
        "parameters": len(LAWS[law].parameters) if law in LAWS else 0,
        "aicc": np.nan if criterion is None else criterion,
        "held_out": np.nan if held_out is None else held_out.mean(),
        "reason": "; ".join(filter(None, reasons)),
        "flags": "; ".join(fitted.flags) if fitted else "",
    }


def _best(by_aicc: list[str], by_held_out: list[str]) -> tuple[str | None, list[str]]:
    """The one law that both lists support, and what stays undecided. An empty list supports all laws."""
    doubts = []
    if len(by_aicc) > 1:
        difference = f"they differ by less than {SUBSTANTIAL:g}"
        doubts.append(f"AICc cannot tell {', '.join(by_aicc)} apart: {difference}")
    held_out = "the largest D, held out,"
    if len(by_held_out) > 1:
        doubts.append(f"{held_out} cannot tell {', '.join(by_held_out)} apart")
    if by_aicc and by_held_out and not set(by_aicc) & set(by_held_out):
        doubts.append(f"AICc supports {', '.join(by_aicc)}, but {held_out} supports {', '.join(by_held_out)}")
    both = [law for law in by_aicc or by_held_out if law in (by_held_out or by_aicc)]
    return (both[0] if len(both) == 1 else None), doubts


def _attempt(score: Callable[..., T], *args: object, **options: object) -> tuple[T | None, str]:
    """A score, or None and why it is refused."""
    try:
        return score(*args, **options), ""
    except Refused as refusal:
        return None, str(refusal)


def _held_out(law: str, predictors: Mapping[str, ArrayLike], loss: ArrayLike, huber_delta: float) -> Array:
    """Absolute log errors (m,) of a law at the m points of the largest D, fitted to the other points."""
    columns = {name: np.asarray(predictors[name], dtype=float) for name in LAWS[law].predictors}
    loss = np.asarray(loss, dtype=float)
    held = columns["D"] == columns["D"].max()
    others = {name: values[~held] for name, values in columns.items()}
    try:
        fitted = fit(law, others, loss[~held], huber_delta=huber_delta, samples=0)
    except Refused as refusal:
        raise Refused(f"without the largest D, {refusal}") from None
    predicted = fitted.predict({name: values[held] for name, values in columns.items()})
    return np.abs(np.log(loss[held] / predicted))


def _indistinct(errors: Mapping[str, Array]) -> list[str]:
    """The laws whose errors (m,) do not exceed the best's by two standard errors of the paired difference."""
    if not errors:
        return []
    least = errors[min(errors, key=lambda law: float(errors[law].mean()))]
    indistinct = []
    for law, error in errors.items():
        excess = error - least
        allowed = 2 * excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else np.inf
        if excess.mean() <= allowed + ROUNDING:
            indistinct.append(law)
    return indistinct
