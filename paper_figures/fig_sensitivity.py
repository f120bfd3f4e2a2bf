"""What each layer group costs in accuracy: alone in a low precision, and as the last one to follow the others into it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ablate.paper_figures.style import LETTERS, arms, figure, legend, named, set_title, thin

PANELS = {"alone": "all else full", "last": "all else low"}


def draw(costs: pd.DataFrame, groups: Sequence[str], title: str, path: Path) -> None:
    """Write path.pdf and path.png. costs: the table of `analysis.sensitivity.sensitivities`; groups: in the model's order."""
    looks, lines = arms(costs["precision"]), {}
    with figure(path, 3.2, 2, nrows=2, sharex=True, sharey=True) as grid:
        for axes, (how, told) in zip(grid, PANELS.items(), strict=True):
            axes.axhline(0, color="black", linewidth=0.6)
            for i, (kind, (colour, marker)) in enumerate(looks.items()):
                rows = (
                    costs[(costs["how"] == how) & (costs["precision"] == kind)]
                    .set_index("group")
                    .reindex(groups)
                )
                x = np.arange(len(groups)) + 0.15 * (i - (len(looks) - 1) / 2)  # side by side
                look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1}
                half = 100 * (rows["accuracy_high"] - rows["accuracy_cost"])
                error = half if half.notna().any() else None
                lines[kind] = axes.errorbar(x, 100 * rows["accuracy_cost"], error, elinewidth=0.8, **look)
            axes.set_ylabel(f"cost (points),\n{told}", fontsize=7)
        named(grid[1].xaxis, groups, rotation=60, ha="right", rotation_mode="anchor")
        legend(grid[0], lines, fontsize=7)
        set_title(grid[0], title, 2 * LETTERS)
        thin(grid[1])
