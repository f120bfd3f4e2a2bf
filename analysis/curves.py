"""Error against data volume: the law that fits each arm, with its band, and the law that each gap follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.choice import Choice, choose
from ablate.analysis.scaling import Fit, fit
from ablate.analysis.scaling_problem import Refused

ARM_LAWS = ("power", "power_floor")
GAP_LAWS = ("gap_shared", "gap_constant", "gap_free", "gap_growing")
SAMPLES = 500  # of the bootstrap
HUBER_DELTA = 0.02  # of the log error: about the noise of a seed, so that only outliers count by their size
CURVE_POINTS = 60


@dataclass(frozen=True)
class Curves:
    """Error against data volume.

    Attributes:
        laws: a row per law and parameter (arm, law, chosen, parameter, value, low, high by bootstrap,
            profile_low, profile_high by profile likelihood, flags); 95 %, 0 or infinite where the points do
            not bound it.
        bands: a row per arm and image count (arm, images, error, low, high), of the arm's chosen law.
        choices: a row per law and arm, or pair of arms, with the columns of `Choice.table`.
        notes: what the points cannot tell.
    """

    laws: pd.DataFrame
    bands: pd.DataFrame
    choices: pd.DataFrame
    notes: tuple[str, ...]


@dataclass
class _Rows:
    """The rows of `Curves` while they are collected."""

    laws: list[dict[str, Any]] = field(default_factory=list)
    bands: list[pd.DataFrame] = field(default_factory=list)
    choices: list[pd.DataFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def curves(records: pd.DataFrame, *, arms: Sequence[str], baseline: str) -> Curves:
    """Fits each arm's error, and the two curves of each arm and the baseline together.

    Args:
        records: a row per trial: arm, seed, images, error in (0, 1].
        arms: the arms to compare with the baseline.
        baseline: the full-precision arm.

    Returns:
        The fits. Nothing raises: what is refused is in the notes.
    """
    rows = _Rows()
    for arm in (baseline, *arms):
        _fit_arm(rows, arm, records[records["arm"] == arm])
    for arm in arms:
        _fit_pair(rows, arm, baseline, records[records["arm"].isin([baseline, arm])])
    no_bands = pd.DataFrame(columns=["arm", "images", "error", "low", "high"])
    return Curves(
        laws=pd.DataFrame(rows.laws),
        bands=pd.concat(rows.bands) if rows.bands else no_bands,
        choices=pd.concat(rows.choices) if rows.choices else pd.DataFrame(),
        notes=tuple(rows.notes),
    )


def _fit_arm(rows: _Rows, arm: str, records: pd.DataFrame) -> None:
    """The chosen law of an arm; the closest one where none is chosen."""
    images = records["images"]
    choice = _choice(rows, arm, ARM_LAWS, {"D": images}, records["error"])
    if choice is None:
        return
    _, closest = min((fitted.objective, law) for law, fitted in choice.fits.items())
    law = choice.best or closest
    fitted = fit(law, {"D": images}, records["error"], huber_delta=HUBER_DELTA, samples=SAMPLES)
    rows.laws += _parameters(arm, fitted, choice.best == law)
    rows.bands.append(_band(arm, fitted, np.geomspace(images.min(), images.max(), CURVE_POINTS)))


def _fit_pair(rows: _Rows, arm: str, baseline: str, records: pd.DataFrame) -> None:
    """The multiplier of an arm and its baseline, and the chosen law of their gap."""
    pair = f"{arm} and {baseline}"
    predictors = {"D": records["images"], "quantized": (records["arm"] == arm).astype(float)}
    choice = _choice(rows, pair, GAP_LAWS, predictors, records["error"])
    if choice is None:
        return
    for law in filter(None, ("multiplier", choice.best)):
        fitted = fit(law, predictors, records["error"], huber_delta=HUBER_DELTA, samples=SAMPLES)
        rows.laws += _parameters(pair, fitted, law == choice.best)


def _choice(
    rows: _Rows, name: str, laws: Sequence[str], predictors: dict[str, Any], error: Any
) -> Choice | None:
    """The choice between laws, added to the rows; None, with a note, where none can be fitted."""
    try:
        choice = choose(laws, predictors, error, huber_delta=HUBER_DELTA)
    except Refused as refusal:
        rows.notes.append(f"{name}: {refusal}")
        return None
    rows.choices.append(choice.table.reset_index().assign(arm=name, best=choice.table.index == choice.best))
    rows.notes += [f"{name}: {doubt}" for doubt in choice.undecided]
    return choice


def _band(arm: str, fitted: Fit, images: NDArray[np.float64]) -> pd.DataFrame:
    """The curve of a law at these images (m,) with its bootstrap interval."""
    low, high = fitted.band({"D": images})
    columns = {"arm": arm, "images": images, "error": fitted.predict({"D": images}), "low": low, "high": high}
    return pd.DataFrame(columns)


def _parameters(arm: str, fitted: Fit, chosen: bool) -> list[dict[str, Any]]:
    """A row per parameter of a fitted law."""
    return [
        {
            "arm": arm,
            "law": fitted.law,
            "equation": fitted.equation,
            "chosen": chosen,
            "parameter": name,
            "value": value,
            **dict(zip(("low", "high"), fitted.intervals[name], strict=True)),
            **dict(zip(("profile_low", "profile_high"), fitted.profile[name], strict=True)),
            "flags": "; ".join(fitted.flags),
        }
        for name, value in fitted.parameters.items()
    ]
