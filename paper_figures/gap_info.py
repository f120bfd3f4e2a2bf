"""What a figure of the gap over data shows, in print (`fig_gap`) and on the report page."""

from dataclasses import dataclass

import pandas as pd

from ablate.config.objectives import AXES
from ablate.paper_figures.palette import colours

X_LABEL = AXES["images"].label
IN_POINTS = ["gap", "low", "high"]


@dataclass(frozen=True)
class ArmGap:
    """The gap between one arm and full precision, over the volume of training data.

    Args:
        colour: Of the arm.
        sizes: A row a size of the training set (images, kept, gap, low, high), gaps in points. The intervals
            hold together. Sizes that are not `kept` have no interval and no part in the verdict.
        verdict: The arm's row of verdicts.csv; its values are shares.
    """

    colour: str
    sizes: pd.DataFrame
    verdict: "pd.Series[float]"

    @property
    def same_recipe(self) -> bool:
        """Whether the full-precision arm was trained by the same recipe."""
        return bool(self.verdict["same_recipe"])


def gap_info(gaps: pd.DataFrame, verdicts: pd.DataFrame) -> dict[str, ArmGap]:
    """Compute what a figure shows.

    Args:
        gaps: A row an arm and size (arm, images, kept, gap, low, high); shares.
        verdicts: A row an arm (arm, verdict, same_recipe, first, second, margin); shares.

    Returns:
        By arm, in the order of the gaps.
    """
    verdict_of = verdicts.set_index("arm")
    in_points = gaps.assign(**{name: 100 * gaps[name] for name in IN_POINTS})
    return {
        arm: ArmGap(colour, in_points[gaps["arm"] == arm], verdict_of.loc[arm])
        for arm, colour in colours(gaps["arm"]).items()
    }
