"""What each layer group costs in accuracy: alone in a low precision, and as the last one to follow the others into it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ablate.paper_figures.style import arms, figure

PANELS = {"alone": "all else full", "last": "all else low"}


def draw(costs: pd.DataFrame, groups: Sequence[str], title: str, path: Path) -> None:
    """Write path.pdf and path.png. costs: the table of `analysis.sensitivity.sensitivities`; groups: in the model's order."""
    looks = arms(costs["precision"])
    with figure(path, 3.2, 2, nrows=2, sharex=True, sharey=True) as grid:
        for axes, (how, told) in zip(grid, PANELS.items(), strict=True):
            axes.axhline(0, color="black", linewidth=0.6)
            for i, (kind, (colour, marker)) in enumerate(looks.items()):
                rows = costs[(costs["how"] == how) & (costs["precision"] == kind)].set_index("group").reindex(groups)
                x = np.arange(len(groups)) + 0.15 * (i - (len(looks) - 1) / 2)  # side by side
                look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1, "label": kind}
                half = 100 * (rows["accuracy_high"] - rows["accuracy_cost"])
                axes.errorbar(x, 100 * rows["accuracy_cost"], half if half.notna().any() else None, elinewidth=0.8, **look)
            axes.set_ylabel(f"cost (points),\n{told}", fontsize=7)
        grid[1].set_xticks(range(len(groups)), groups, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        grid[0].legend(fontsize=7)
        grid[0].set_title(title, fontsize=7)
