"""What a figure of the layer groups' costs shows, in print (`fig_sensitivity`) and on the report page."""

from dataclasses import dataclass

import pandas as pd

from ablate.paper_figures.palette import colours

CONDITIONS = {"alone": "all else full", "last": "all else low"}  # by `how` of a cost


@dataclass(frozen=True)
class SensitivityInfo:
    """What each layer group costs in accuracy.

    Args:
        groups: All layer groups, in the order of the model.
        colours: By precision.
        costs: By condition ("all else full", "all else low") and precision: `cost` and `half_width` of its
            interval, in points, indexed by layer group.
    """

    groups: list[str]
    colours: dict[str, str]
    costs: dict[str, dict[str, pd.DataFrame]]


def sensitivity_info(costs: pd.DataFrame) -> SensitivityInfo:
    """Compute what a figure shows from the table of `analysis.sensitivity.sensitivities`."""
    points = costs[["how", "precision", "group"]].assign(
        cost=100 * costs["accuracy_cost"],
        half_width=100 * (costs["accuracy_high"] - costs["accuracy_cost"]),
    )
    by_precision = colours(costs["precision"])
    return SensitivityInfo(
        groups=[group for group in dict.fromkeys(costs["group"]) if group],
        colours=by_precision,
        costs={
            condition: {
                precision: points[(points["how"] == how) & (points["precision"] == precision)]
                .set_index("group")
                .loc[:, ["cost", "half_width"]]
                for precision in by_precision
            }
            for how, condition in CONDITIONS.items()
        },
    )
