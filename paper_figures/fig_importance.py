"""Which parameter sets the best trials apart, in each objective, and what chance alone would show."""

from pathlib import Path

import numpy as np

from ablate.paper_figures.importance_info import ImportanceInfo
from ablate.paper_figures.palette import BLUE, GREY, axis_of
from ablate.paper_figures.style import figure, named, set_title_of_all

MAX_PARAMETERS = 12


def draw(info: ImportanceInfo, title: str, path: Path) -> None:
    """Write path.pdf and path.png; bars within chance are grey.

    Args:
        info: Of the parameters.
        title: Above the panels.
        path: Of the files, without their endings.
    """
    names, objectives = info.ranking[-MAX_PARAMETERS:], list(info.by_objective)
    columns = 1 if len(objectives) == 1 else 2
    if len(info.ranking) > len(names):
        title += f"; the first {len(names)} of {len(info.ranking)} parameters"
    panels = {"ncols": len(objectives), "sharey": True, "squeeze": False}
    with figure(path, 0.9 + 0.17 * len(names), columns, **panels) as grid:
        for axes, objective in zip(grid[0], objectives, strict=True):
            rows = info.by_objective[objective].set_index("parameter").reindex(names)
            y = np.arange(len(names))
            colours = [BLUE if clear else GREY for clear in rows["clear"].eq(True)]
            axes.barh(y, 100 * rows["importance"], color=colours, height=0.6)
            axes.plot(100 * rows["chance"], y, "|", color="black", markersize=7)
            named(axes.yaxis, names)
            axes.set_xlabel("importance (%)")
            axes.set_title(axis_of(objective).label.partition(" (")[0], fontsize=7)
        canvas = grid[0, 0].figure
        bound = "what chance exceeds in 1 of 20 panels, over all parameters together"
        canvas.legend(grid[0, 0].lines, [bound], fontsize=6, loc="outside lower right")
        set_title_of_all(canvas, title, columns)
