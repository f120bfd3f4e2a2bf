"""What the tables of fitted curves hold: a law's parameters, its band, or the means where it is rejected."""

from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.choice import TEST, Choice, rejection
from ablate.analysis.laws import FLOORS
from ablate.analysis.scaling import Fit
from ablate.analysis.t_interval import mean_interval

CURVE_POINTS = 60


def band(fitted: Fit, measured: pd.Series) -> pd.DataFrame:
    """The curve of an arm's law within the measured range, with its pointwise bootstrap interval.

    Args:
        fitted: of the arm.
        measured: images of its trials.

    Returns:
        A row per image count: images, error, low, high, law.
    """
    images = np.geomspace(measured.min(), measured.max(), CURVE_POINTS)
    low, high = fitted.band({"D": images})
    curve = {"images": images, "error": fitted.predict({"D": images}), "low": low, "high": high}
    return pd.DataFrame(curve | {"law": fitted.law})


def means(records: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean of an arm's errors at each size, with its t interval over seeds.

    Args:
        records: of the arm: images, error.

    Returns:
        A row per size: images, error, low, high (NaN for a single seed), law (empty).
    """
    sizes = np.log(records["error"]).groupby(records["images"])
    table = pd.DataFrame(
        [(images, *np.exp(mean_interval(errors))) for images, errors in sizes],
        columns=["images", "error", "low", "high"],
    )
    return table.replace([0.0, np.inf], np.nan).assign(law="")


def parameters(arm: str, fitted: Fit, data: str, choice: Choice) -> list[dict[str, Any]]:
    """A row per parameter of a fitted law.

    Args:
        arm: or the pair of arms.
        fitted: the law.
        data: what its D is.
        choice: that the law was part of.

    Returns:
        Rows of `Curves.laws`.
    """
    # the multiplier's two curves are those of `gap_shared`
    row = choice.table.loc["gap_shared" if fitted.law == "multiplier" else fitted.law]
    flags = [*fitted.flags]
    if row["rejected"]:
        floors = " and ".join(name for name in fitted.parameters if name in FLOORS)
        is_no_floor = f": {floors} cannot be taken for a floor" if floors else ""
        flags.insert(0, f"rejected by lack of fit ({rejection(row)}){is_no_floor}")
    return [
        {
            "arm": arm,
            "law": fitted.law,
            "equation": fitted.equation,
            "data": data,
            "chosen": fitted.law == choice.best,
            "rejected": bool(row["rejected"]),
            **{name: row[name] for name in (*TEST, "p_holm")},
            "parameter": name,
            "value": value,
            **dict(zip(("low", "high"), fitted.intervals[name], strict=True)),
            **dict(zip(("profile_low", "profile_high"), fitted.profile[name], strict=True)),
            "flags": "; ".join(flags),
        }
        for name, value in fitted.parameters.items()
    ]
