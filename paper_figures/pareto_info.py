"""What a figure of the Pareto front shows, in print (`fig_pareto`) and on the report page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.config.objectives import OBJECTIVES, Axis
from ablate.paper_figures.front_curve import FrontCurve, front_curve
from ablate.paper_figures.palette import axis_of, is_logarithmic

TRIAL = Axis("trial", "trial")


@dataclass(frozen=True)
class ParetoInfo:
    """The first objective over the second, the third as colour; one objective alone trial by trial.

    Args:
        x: Axis of the second objective; TRIAL where there is only one objective.
        y: Axis of the first objective.
        colour: Axis of the third objective, or None.
        log_colour: Whether the colours of the front follow the logarithm of the third objective.
        trials: A row a trial, in the units of the axes: x, y, colour (if any), `front` (bool), `label` (str).
        spread: A row for each trial with further seeds: its x, and `low` and `high` of y over its seeds.
        stairs: (x, y) by x: the front over the first two objectives, or the best so far, trial by trial.
        drops_before_points: Whether a step of the stairs changes y before it changes x. What a point attains
            lies on its worse side, so this is so where x is maximised.
        curve: What was measured of the front beside its trials, or None.
    """

    x: Axis
    y: Axis
    colour: Axis | None
    log_colour: bool
    trials: pd.DataFrame
    spread: pd.DataFrame
    stairs: pd.DataFrame
    drops_before_points: bool
    curve: FrontCurve | None = None

    @property
    def log_x(self) -> bool:
        return is_logarithmic(self.x, self.trials["x"])


def pareto_info(
    trials: pd.DataFrame, objectives: Sequence[str], tables: Mapping[str, pd.DataFrame] = {}
) -> ParetoInfo:
    """Compute what a figure of the front shows.

    Args:
        trials: A row a complete trial, indexed 0, 1, ... in the order of the run: its objectives, `front`
            (bool: on the front over all objectives), `stairs` (bool: on the front over the first two) and
            `label` (text beside the point, or "").
        objectives: One to three are drawn.
        tables: Of the finding "front", for the curve and the ranges over seeds.
    """
    numbered = trials.assign(trial=trials.index + 1)
    y, x = axis_of(objectives[0]), axis_of(objectives[1]) if len(objectives) > 1 else TRIAL
    colour = axis_of(objectives[2]) if len(objectives) > 2 else None
    shown = trials[["front", "label"]].assign(x=x(numbered), y=y(numbered))
    if colour:
        shown["colour"] = colour(numbered)
    if x is TRIAL:
        best = shown["y"].cummax() if OBJECTIVES.get(y.name) == "max" else shown["y"].cummin()
        stairs = shown[["x"]].assign(y=best)
    else:
        stairs = shown.loc[trials["stairs"], ["x", "y"]].drop_duplicates().sort_values("x")
    return ParetoInfo(
        x=x,
        y=y,
        colour=colour,
        log_colour=colour is not None and is_logarithmic(colour, shown.loc[shown["front"], "colour"]),
        trials=shown,
        spread=_spread(tables, x, y),
        stairs=stairs,
        drops_before_points=OBJECTIVES.get(x.name) == "max",
        curve=front_curve(tables, x, y),
    )


def _spread(tables: Mapping[str, pd.DataFrame], x: Axis, y: Axis) -> pd.DataFrame:
    """(x, low, high) of the table "seed_range", in the units of the axes."""
    if "seed_range" not in tables or x is TRIAL:
        return pd.DataFrame(columns=["x", "low", "high"])
    rows = tables["seed_range"]
    return pd.DataFrame({"x": x(rows), "low": rows["low"] / y.unit, "high": rows["high"] / y.unit})
