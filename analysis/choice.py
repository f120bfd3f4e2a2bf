"""Chooses between scaling laws, and says what the points leave undecided."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from ablate.analysis.descent import huber
from ablate.analysis.intervals import ROUNDING
from ablate.analysis.laws import LAWS
from ablate.analysis.scaling import Fit, Refused, fit

Array = NDArray[np.float64]
T = TypeVar("T")
SUBSTANTIAL = (
    2.0  # laws within 2 of the least AICc have substantial support (Burnham and Anderson 2002, section 2.6)
)


@dataclass(frozen=True)
class Choice:
    """Which laws the points support.

    best: the one law that AICc and the held-out points both support, or None. table: a row a law with `aicc`,
    `delta_aicc`, `held_out` (mean absolute log error at the largest D, fitted without it), `reason` where one of them is
    missing, `flags`. undecided: what could not be decided, in sentences. fits: by law, those that were not refused.
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
    """Compares laws on the same n points by AICc and by holding out the largest D. Arguments as for `scaling.fit`."""
    if len(set(laws)) < 2:
        raise Refused(f"a choice needs two laws or more, but got {', '.join(laws) or 'none'}")
    fits, errors, rows, undecided = {}, {}, [], []
    for law in laws:
        fitted, reason = _tried(fit, law, predictors, loss, huber_delta=huber_delta, samples=samples)
        criterion, held_out, reasons = None, None, [reason]
        if fitted:
            fits[law] = fitted
            criterion, no_criterion = _tried(aicc, fitted)
            held_out, not_held_out = _tried(_held_out, law, predictors, loss, huber_delta)
            reasons = [no_criterion, not_held_out]
        if held_out is not None:
            errors[law] = held_out
        undecided += [f"{law}: {reason}" for reason in reasons if reason]
        rows.append(
            {
                "law": law,
                "parameters": len(LAWS[law].parameters) if law in LAWS else 0,
                "aicc": np.nan if criterion is None else criterion,
                "held_out": np.nan if held_out is None else held_out.mean(),
                "reason": "; ".join(filter(None, reasons)),
                "flags": "; ".join(fitted.flags) if fitted else "",
            }
        )
    if not fits:
        raise Refused("no law can be fitted: " + undecided[0])
    table = pd.DataFrame(rows).set_index("law")
    table.insert(2, "delta_aicc", table["aicc"] - table["aicc"].min())
    supported = list(table.index[table["delta_aicc"] <= SUBSTANTIAL])
    best, doubts = _verdict(supported, _indistinct(errors))
    return Choice(best, table, (*undecided, *doubts), fits)


def _verdict(by_aicc: list[str], by_held_out: list[str]) -> tuple[str | None, list[str]]:
    """The one law that both lists support, where one of them is empty the other's, and what stays open."""
    doubts = []
    if len(by_aicc) > 1:
        doubts.append(
            f"AICc cannot tell {', '.join(by_aicc)} apart: they differ by less than {SUBSTANTIAL:g}"
        )
    if len(by_held_out) > 1:
        doubts.append(f"the largest D, held out, cannot tell {', '.join(by_held_out)} apart")
    if by_aicc and by_held_out and not set(by_aicc) & set(by_held_out):
        doubts.append(
            f"AICc supports {', '.join(by_aicc)}; the largest D, held out, supports {', '.join(by_held_out)}"
        )
    both = [law for law in by_aicc or by_held_out if law in (by_held_out or by_aicc)]
    return (both[0] if len(both) == 1 else None), doubts


def _tried(score: Callable[..., T], *given: object, **options: object) -> tuple[T | None, str]:
    """A score, or why it is refused."""
    try:
        return score(*given, **options), ""
    except Refused as refusal:
        return None, str(refusal)


def aicc(fitted: Fit) -> float:
    """Akaike's criterion with the small-sample correction (Hurvich and Tsai 1989); the noise's dispersion is a parameter too.

    Raises Refused where it is not defined: for n points and k parameters, unless n > k + 1.
    """
    n, k = len(fitted.residuals), len(fitted.theta) + 1
    if n <= k + 1:
        raise Refused(
            f"AICc needs `n > k + 1`, but got n={n} points and k={k} parameters, the noise's dispersion among them"
        )
    residuals = np.maximum(np.abs(fitted.residuals), ROUNDING)  # exact laws are equally exact
    return 2 * k - 2 * log_likelihood(residuals, fitted.huber_delta) + 2 * k * (k + 1) / (n - k - 1)


def log_likelihood(residuals: Array, delta: float) -> float:
    """Of residuals (n,) under the density exp(-huber(r) / phi) / Z(phi), whose maximum is Huber's fit, at the best phi."""
    total = float(huber(residuals, delta).sum())

    def minus(log_phi: float) -> float:
        return len(residuals) * np.log(normalizer(np.exp(log_phi), delta)) + total / np.exp(log_phi)

    low = (
        np.log(total / len(residuals)) - 0.01
    )  # Z grows with phi at most, with its root at least: phi is 1 to 2 times that
    found = optimize.minimize_scalar(
        minus, bounds=(low, low + np.log(2) + 0.02), method="bounded", options={"xatol": 1e-9}
    )
    return -float(found.fun)


def normalizer(phi: float, delta: float) -> float:
    """Z(phi): the integral of exp(-huber(r) / phi) over r."""
    core = np.sqrt(2 * np.pi * phi) * special.erf(delta / np.sqrt(2 * phi))
    return float(core + 2 * phi / delta * np.exp(-(delta**2) / (2 * phi)))


def _held_out(law: str, predictors: Mapping[str, ArrayLike], loss: ArrayLike, huber_delta: float) -> Array:
    """Absolute log errors (m,) of a law at the m points of the largest D, fitted to the others."""
    rows = {name: np.asarray(predictors[name], dtype=float) for name in LAWS[law].predictors}
    loss = np.asarray(loss, dtype=float)
    held = rows["D"] == rows["D"].max()
    try:
        rest = fit(
            law,
            {name: values[~held] for name, values in rows.items()},
            loss[~held],
            huber_delta=huber_delta,
            samples=0,
        )
    except Refused as refusal:
        raise Refused(f"without the largest D, {refusal}") from None
    return np.abs(np.log(loss[held] / rest.predict({name: values[held] for name, values in rows.items()})))


def _indistinct(errors: Mapping[str, Array]) -> list[str]:
    """The laws whose errors (m,) are not above the best by two standard errors of their paired difference."""
    if not errors:
        return []
    least = errors[min(errors, key=lambda law: float(errors[law].mean()))]
    near = []
    for law, error in errors.items():
        more = error - least
        doubt = 2 * more.std(ddof=1) / np.sqrt(len(more)) if len(more) > 1 else np.inf
        near += [law] * bool(more.mean() <= doubt + ROUNDING)
    return near
