"""What a figure of the parameters' importance shows, in print (`fig_importance`) and on the report page."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class ImportanceInfo:
    """How much each parameter sets the best trials apart.

    Args:
        by_objective: A row a parameter (parameter, importance, chance, clear), the most important first.
            `clear` (bool): the importance is more than `chance`, its bound over all parameters together.
        ranking: Parameters by their mean importance over the objectives, the least important first.
    """

    by_objective: dict[str, pd.DataFrame]
    ranking: list[str]


def importance_info(importances: pd.DataFrame) -> ImportanceInfo:
    """Compute what a figure shows from the table of `analysis.importance.by_parameter`."""
    mean = importances.groupby("parameter")["importance"].mean().sort_values(kind="stable")
    marked = importances.assign(clear=importances["importance"] > importances["chance"])
    columns = ["parameter", "importance", "chance", "clear"]
    by_objective = {str(name): rows[columns] for name, rows in marked.groupby("objective", sort=False)}
    return ImportanceInfo(by_objective, list(mean.index))
