"""The curve through a Pareto front, or its members' means where there is none, in the units of the axes."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ablate.config.objectives import Axis


@dataclass(frozen=True)
class FrontCurve:
    """What was measured of a front beside its trials.

    Args:
        rows: x, y, low, high by x; low and high are NaN where there is no band.
        is_joined: Whether it is a curve, with a band; else each row is a mean, with an interval.
        name: What was measured, and what the band or the intervals cover.
    """

    rows: pd.DataFrame
    is_joined: bool
    name: str

    @property
    def has_band(self) -> bool:
        return bool(self.rows["low"].notna().all())


def front_curve(tables: Mapping[str, pd.DataFrame], x: Axis, y: Axis) -> FrontCurve | None:
    """The table "front_fit", else "front_points" if these means have intervals.

    Args:
        tables: Of the finding "front"; those that are missing are not drawn.
        x: Axis of the cost.
        y: Axis of the accuracy.

    Returns:
        None where the tables are empty or over other axes.
    """
    table = tables.get("front_fit", tables.get("front_points"))
    is_joined = "front_fit" in tables
    if table is None or table.empty or x.name not in table or y.name != "accuracy":
        return None
    if not is_joined and table["low"].isna().any():
        return None
    columns = {"y": "accuracy", "low": "low", "high": "high"}
    rows = pd.DataFrame({"x": x(table), **{name: table[column] / y.unit for name, column in columns.items()}})
    return FrontCurve(rows.sort_values("x"), is_joined, _name(table.iloc[0], is_joined))


def _name(row: "pd.Series[float]", is_joined: bool) -> str:
    seeds, images = row["measured_seeds"], row["measured_images"]
    name = f"{'fit' if is_joined else 'mean'} ({row['measured_on']}"
    over = {f"{seeds} seeds": seeds > 1, "images": images > 1}
    covered = [axis for axis, is_drawn in over.items() if is_drawn]
    return f"{name}), 95 % over {' and '.join(covered)}" if covered else f"{name}, no band)"
