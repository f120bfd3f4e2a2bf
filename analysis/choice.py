"""Chooses between scaling laws, and says what the points leave undecided."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.aicc import aicc
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.lack_of_fit import LEVEL, LackOfFit
from ablate.analysis.laws import LAWS, log_loss, transformed
from ablate.analysis.scaling import Fit, best, fit
from ablate.analysis.scaling_problem import Refused, to_problem
from ablate.analysis.significance import holm

Array = NDArray[np.float64]
T = TypeVar("T")
# Laws within 2 of the least AICc have substantial support (Burnham and Anderson 2002, section 2.6).
SUBSTANTIAL = 2.0
TEST = ("f", "f_numerator", "f_denominator", "p")  # the columns of a `LackOfFit`


@dataclass(frozen=True)
class Choice:
    """Which laws the points support.

    Attributes:
        best: the one law that both AICc and the held-out points support, of those that lack of fit does not
            reject; None where there is not exactly one.
        closest: the best law, or else the one of least AICc, not rejected if there is such a law.
        table: a row per law: `aicc`, `delta_aicc`, `held_out` (mean absolute log error at the largest D,
            fitted without it), the test of lack of fit (`f`, its degrees of freedom `f_numerator` and
            `f_denominator`, `p`; `p_holm` is adjusted over the laws of this table, and `rejected` says
            whether it is below 5 %), `reason` where one of them is missing, `flags` of the fit.
        undecided: what could not be decided, in sentences.
        fits: by law, without those that were refused.
    """

    best: str | None
    closest: str
    table: pd.DataFrame
    undecided: tuple[str, ...]
    fits: dict[str, Fit]


def choose(
    laws: Sequence[str],
    predictors: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    huber_delta: float = 1e-3,
) -> Choice:
    """Compares laws on the same n points by lack of fit, by AICc and by holding out the largest D.

    Args:
        laws: two or more names in `laws.LAWS`.
        predictors: as for `scaling.fit`, each (n,).
        loss: (n,).
        blocks: as for `scaling.fit`, (n,).
        huber_delta: as for `scaling.fit`.

    Returns:
        The choice.

    Raises:
        Refused: there are fewer than two laws, or none can be fitted.
    """
    if len(set(laws)) < 2:
        raise Refused(f"a choice needs two laws or more, but got {', '.join(laws) or 'none'}")
    fits, errors, rows, undecided = {}, {}, [], []
    for law in laws:
        fitted, reason = _attempt(
            fit, law, predictors, loss, blocks=blocks, huber_delta=huber_delta, samples=0
        )
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
    table = _with_comparisons(pd.DataFrame(rows).set_index("law"))
    kept = table.loc[[law for law in fits if not table.loc[law, "rejected"]]]
    supported = list(kept.index[kept["aicc"] - kept["aicc"].min() <= SUBSTANTIAL])
    one, doubts = _best(supported, _indistinct({law: errors[law] for law in kept.index if law in errors}))
    closest = one or _closest(kept if len(kept) else table.loc[list(fits)], fits)
    return Choice(one, closest, table, (*undecided, *_tested(table, fits), *doubts), fits)


def _row(
    law: str, fitted: Fit | None, criterion: float | None, held_out: Array | None, reasons: list[str]
) -> dict[str, Any]:
    """A row of `Choice.table`."""
    test = fitted.lack_of_fit if fitted else None
    return {
        "law": law,
        "parameters": len(LAWS[law].parameters) if law in LAWS else 0,
        "aicc": np.nan if criterion is None else criterion,
        "held_out": np.nan if held_out is None else held_out.mean(),
        **dict(zip(TEST, test or [np.nan] * len(TEST), strict=True)),
        "reason": "; ".join(filter(None, reasons)),
        "flags": "; ".join(fitted.flags) if fitted else "",
    }


def _with_comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns that compare its laws."""
    table.insert(2, "delta_aicc", table["aicc"] - table["aicc"].min())
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    table.insert(table.columns.get_loc("p_holm") + 1, "rejected", table["p_holm"] < LEVEL)
    return table


def _closest(rows: pd.DataFrame, fits: Mapping[str, Fit]) -> str:
    """The law of least AICc in these rows of a table; the one of least objective where no AICc is defined."""
    known = rows["aicc"].dropna()
    return str(known.idxmin()) if len(known) else min(rows.index, key=lambda law: fits[law].objective)


def _tested(table: pd.DataFrame, fits: Mapping[str, Fit]) -> list[str]:
    """What lack of fit says of the laws that were fitted."""
    rows, sentences = table.loc[list(fits)], []
    if out := [f"{law} ({rejection(row)})" for law, row in rows[rows["rejected"]].iterrows()]:
        sentences.append(f"lack of fit rejects {', '.join(out)}; p adjusted by Holm over {len(table)} laws")
    if untested := list(rows.index[rows["p"].isna()]):
        why = "no setting is repeated, or there are as many parameters as settings"
        sentences.append(f"lack of fit cannot be tested for {', '.join(untested)}: {why}")
    return sentences


def rejection(row: Mapping[str, Any]) -> str:
    """The test of lack of fit in words.

    Args:
        row: with the test's columns, as in `Choice.table`.

    Returns:
        F with its degrees of freedom, and the adjusted p.
    """
    return str(LackOfFit(row["f"], row["f_numerator"], row["f_denominator"], row["p_holm"]))


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
        problem = to_problem(law, others, loss[~held], huber_delta)
    except Refused as refusal:
        raise Refused(f"without the largest D, {refusal}") from None
    at_held = transformed({name: values[held] for name, values in columns.items()})
    return np.abs(np.log(loss[held]) - log_loss(LAWS[law], best(problem)[None], at_held)[0][0])


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
