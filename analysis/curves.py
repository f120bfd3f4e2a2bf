"""Error against data volume, arm by arm: the points, the law that fits them with its band, and which law the gap follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.choice import Choice, choose
from ablate.analysis.scaling import Fit, Refused, fit

OF_AN_ARM = ("power", "power_floor")
OF_A_GAP = ("gap_shared", "gap_constant", "gap_free", "gap_growing")
SAMPLES = 500  # of the bootstrap
HUBER = 0.02  # of the log error: about the noise of a seed, so that only outliers count by their size
FINE = 60  # points of a drawn curve


@dataclass(frozen=True)
class Curves:
    """What can be said of error against data volume, and in `notes` what cannot.

    laws: a row a law and parameter (arm, law, chosen, parameter, value, low, high by bootstrap, profile_low, profile_high
    by profile likelihood, flags; 95 %, 0 or infinite where the points do not bound it). bands: a row an arm
    and image count (arm, images, error, low, high) of the arm's chosen law. choices: a row an arm, or a pair of arms, and a
    law, with `aicc`, `delta_aicc`, `held_out` and `reason`, `flags`.
    """

    laws: pd.DataFrame
    bands: pd.DataFrame
    choices: pd.DataFrame
    notes: tuple[str, ...]


def curves(records: pd.DataFrame, *, arms: Sequence[str], baseline: str) -> Curves:
    """Fit each arm's error, and the two curves of each arm and the baseline together.

    records: a row a trial with arm, seed, images and error in (0, 1]. Nothing raises: what is refused is in the notes.
    """
    laws: list[dict[str, Any]] = []
    bands: list[pd.DataFrame] = []
    choices: list[pd.DataFrame] = []
    notes: list[str] = []
    for arm in (baseline, *arms):
        rows = records[records["arm"] == arm]
        if found := _choice(arm, OF_AN_ARM, {"D": rows["images"]}, rows["error"], choices, notes):
            _, closest = min((fitted.objective, law) for law, fitted in found.fits.items())
            best = found.best or closest
            fitted = fit(best, {"D": rows["images"]}, rows["error"], huber_delta=HUBER, samples=SAMPLES)
            laws += _parameters(arm, fitted, found.best == best)
            bands.append(_band(arm, fitted, np.geomspace(rows["images"].min(), rows["images"].max(), FINE)))
    for arm in arms:
        rows, pair = records[records["arm"].isin([baseline, arm])], f"{arm} and {baseline}"
        given = {"D": rows["images"], "quantized": (rows["arm"] == arm).astype(float)}
        if found := _choice(pair, OF_A_GAP, given, rows["error"], choices, notes):
            for law in filter(None, ("multiplier", found.best)):
                fitted = fit(law, given, rows["error"], huber_delta=HUBER, samples=SAMPLES)
                laws += _parameters(pair, fitted, law == found.best)
    whole = pd.concat(bands) if bands else pd.DataFrame(columns=["arm", "images", "error", "low", "high"])
    return Curves(pd.DataFrame(laws), whole, pd.concat(choices) if choices else pd.DataFrame(), tuple(notes))


def _choice(
    name: str,
    laws: Sequence[str],
    given: dict[str, Any],
    error: Any,
    choices: list[pd.DataFrame],
    notes: list[str],
) -> Choice | None:
    """The choice between laws, its table added to `choices`; None, with a note, where none can be fitted."""
    try:
        found = choose(laws, given, error, huber_delta=HUBER)
    except Refused as refusal:
        notes.append(f"{name}: {refusal}")
        return None
    choices.append(found.table.reset_index().assign(arm=name, best=found.table.index == found.best))
    notes += [f"{name}: {doubt}" for doubt in found.undecided]
    return found


def _band(arm: str, fitted: Fit, images: NDArray[np.float64]) -> pd.DataFrame:
    low, high = fitted.band({"D": images})
    return pd.DataFrame(
        {"arm": arm, "images": images, "error": fitted.predict({"D": images}), "low": low, "high": high}
    )


def _parameters(arm: str, fitted: Fit, chosen: bool) -> list[dict[str, Any]]:
    about = {"arm": arm, "law": fitted.law, "equation": fitted.equation, "chosen": chosen}
    rows = []
    for name, value in fitted.parameters.items():
        (low, high), (profile_low, profile_high) = fitted.intervals[name], fitted.profile[name]
        row = about | {"parameter": name, "value": value, "low": low, "high": high}
        row |= {"profile_low": profile_low, "profile_high": profile_high, "flags": "; ".join(fitted.flags)}
        rows.append(row)
    return rows
