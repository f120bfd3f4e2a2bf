"""Which parameter sets the best trials apart, in each objective, and what chance alone would show."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from ablate.config.objectives import AXES
from ablate.paper_figures.palette import BLUE, GREY
from ablate.paper_figures.style import LETTERS, figure, named

MOST = 12  # parameters


def draw(importances: pd.DataFrame, title: str, path: Path) -> None:
    """Write path.pdf and path.png. importances: the table of `analysis.importance.by_parameter`; grey within chance."""
    mean = importances.groupby("parameter")["importance"].mean().sort_values(kind="stable")
    names = list(mean.index[-MOST:])
    objectives = list(dict.fromkeys(importances["objective"]))
    panels = {"ncols": len(objectives), "sharey": True, "squeeze": False}
    with figure(path, 0.9 + 0.17 * len(names), 1 if len(objectives) == 1 else 2, **panels) as grid:
        for axes, objective in zip(grid[0], objectives, strict=True):
            rows = importances[importances["objective"] == objective].set_index("parameter").reindex(names)
            y = np.arange(len(names))
            clear = [BLUE if row else GREY for row in rows["importance"] > rows["chance"]]
            axes.barh(y, 100 * rows["importance"], color=clear, height=0.6)
            axes.plot(100 * rows["chance"], y, "|", color="black", markersize=7)
            named(axes.yaxis, names)
            axes.set_xlabel("importance (%)")
            axes.set_title(AXES[objective].label.partition(" (")[0], fontsize=7)
        canvas = grid[0, 0].figure
        canvas.legend(grid[0, 0].lines, ["the most that chance shows"], fontsize=6, loc="outside lower right")
        canvas.suptitle(textwrap.fill(title, (1 if len(objectives) == 1 else 2) * LETTERS), fontsize=7)
