"""What each layer group costs in accuracy: alone in a low precision, and as the last to follow the others."""

from pathlib import Path

import numpy as np

from ablate.paper_figures.sensitivity_info import SensitivityInfo
from ablate.paper_figures.style import (
    LETTERS,
    figure,
    legend,
    markers,
    set_title,
    slanted,
    slanted_inches,
    thin,
)


def draw(info: SensitivityInfo, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        info: Of the costs.
        title: Above the panels.
        path: Of the files, without their endings.
    """
    shapes, lines = markers(info.colours), {}
    with figure(path, 3.2 + slanted_inches(info.groups), 2, nrows=2, sharex=True, sharey=True) as grid:
        for axes, (condition, by_precision) in zip(grid, info.costs.items(), strict=True):
            axes.axhline(0, color="black", linewidth=0.6)
            for i, (precision, colour) in enumerate(info.colours.items()):
                rows = by_precision[precision].reindex(info.groups)
                x = np.arange(len(info.groups)) + 0.15 * (i - (len(shapes) - 1) / 2)  # side by side
                style = {"color": colour, "marker": shapes[precision], "markersize": 3.5, "linewidth": 1}
                error = rows["half_width"] if rows["half_width"].notna().any() else None
                lines[precision] = axes.errorbar(x, rows["cost"], error, elinewidth=0.8, **style)
            axes.set_ylabel(f"cost (points),\n{condition}", fontsize=7)
        slanted(grid[1].xaxis, info.groups)
        legend(grid[0], lines, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.5)
        set_title(grid[0], title, 2 * LETTERS)
        thin(grid[1], "x")
