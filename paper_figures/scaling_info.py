"""What a figure of error over data shows, in print (`fig_scaling`) and on the report page."""

from dataclasses import dataclass

import pandas as pd

from ablate.config.objectives import AXES
from ablate.paper_figures.palette import colours

X_LABEL, Y_LABEL = AXES["images"].label, "error (%)"


@dataclass(frozen=True)
class ErrorCurve:
    """The error of one arm over the volume of training data.

    Args:
        colour: Of the arm.
        trials: A row a trial (images, error); errors in percent.
        band: A row a size (images, error, low, high), in percent: the law and its band, or the means and
            their intervals where the law is rejected; no rows where no law can be fitted.
        equation: Of the law; "" where none can be fitted.
        rejected: Whether lack of fit rejects the law.
    """

    colour: str
    trials: pd.DataFrame
    band: pd.DataFrame
    equation: str
    rejected: bool = False


def scaling_info(points: pd.DataFrame, bands: pd.DataFrame, laws: pd.DataFrame) -> dict[str, ErrorCurve]:
    """Compute what a figure shows.

    Args:
        points: A row a trial (arm, images, error); errors as shares.
        bands: A row an arm and size (arm, images, error, low, high), none for an arm without a law.
        laws: A row an arm, law and parameter, with the `equation` and whether it is `rejected`.

    Returns:
        A curve for each arm, in the order of the points.
    """
    known = laws.drop_duplicates("arm").set_index("arm") if len(laws) else pd.DataFrame()
    equations, rejected = known.get("equation", {}), known.get("rejected", {})
    return {
        arm: ErrorCurve(
            colour=colour,
            trials=_in_percent(points[points["arm"] == arm], ["error"]),
            band=_in_percent(bands[bands["arm"] == arm], ["error", "low", "high"]),
            equation=str(equations.get(arm, "")),
            rejected=bool(rejected.get(arm, False)),
        )
        for arm, colour in colours(points["arm"]).items()
    }


def _in_percent(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return rows[["images"]].assign(**{column: 100 * rows[column] for column in columns})
