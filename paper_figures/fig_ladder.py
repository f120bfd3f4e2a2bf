"""The ladder: accuracy rung by rung, and what each step is worth at the top."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.labels import shortened_alike, wrapped
from ablate.paper_figures.ladder_info import LadderInfo
from ablate.paper_figures.palette import BLUE, GREY, VERMILLION
from ablate.paper_figures.style import LONGEST, figure, set_title

HEIGHT = 9  # inches, of the tallest figure


def draw(info: LadderInfo, title: str, path: Path) -> None:
    """Write path.pdf and path.png; the reference is a vertical line too.

    Gains and costs whose interval includes 0 are grey.

    Args:
        info: Of the ladder.
        title: Above the left panel.
        path: Of the files, without their endings.
    """
    n, has_costs = len(info.rungs), info.rungs["cost"].notna().any()
    ratios = [3, 1.4] if has_costs else [3]
    panels = {"ncols": len(ratios), "width_ratios": ratios, "sharey": True, "squeeze": False}
    with figure(path, min(HEIGHT, 0.9 + 0.3 * n), 2, **panels) as grid:
        axes = grid[0, 0]
        _draw_accuracies(axes, info)
        names = [wrapped(rung, LONGEST) for rung in shortened_alike(list(info.rungs["rung"]), 2 * LONGEST)]
        axes.set_yticks(np.arange(n)[::-1], names, fontsize=7 if 0.3 * n < HEIGHT else 5)
        axes.set_ylim(-0.6, n - 0.4)
        axes.margins(x=0.05)
        axes.set_xlim(right=axes.get_xlim()[1] + 0.22 * np.diff(axes.get_xlim())[0])
        set_title(axes, title)
        if has_costs:
            _draw_costs(grid[0, 1], info)


def _draw_accuracies(axes: Any, info: LadderInfo) -> None:
    for place, rung in _places(info):
        colour = GREY if rung["rung"] == info.reference else BLUE
        seeds = info.seeds[rung["rung"]]
        dots = {"color": colour, "markersize": 2.5, "alpha": 0.4, "markeredgewidth": 0}
        axes.plot(seeds, np.full(len(seeds), place), "o", **dots)
        _draw_interval(axes, place, rung["mean"], rung["low"], rung["high"], colour)
        if np.isfinite(rung["gain"]):
            text = f"{rung['gain']:+.1f}"
            if np.isfinite(rung["gain_low"]):
                text += f" ± {rung['gain'] - rung['gain_low']:.1f}"
            right = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
            colour = "black" if rung["gain_clear"] else GREY
            axes.annotate(text, (1.0, place), fontsize=7, color=colour, **right)
    if info.reference in set(info.rungs["rung"]):
        top = info.rungs.loc[info.rungs["rung"] == info.reference, "mean"].iloc[0]
        axes.axvline(top, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel("test accuracy (%),\nand the gain over the rung before")


def _draw_costs(axes: Any, info: LadderInfo) -> None:
    axes.axvline(0, color=GREY, linewidth=0.6)
    for place, rung in _places(info):
        if np.isfinite(rung["cost"]):
            colour = VERMILLION if rung["cost_clear"] else GREY
            _draw_interval(axes, place, rung["cost"], rung["cost_low"], rung["cost_high"], colour)
    axes.set_xlabel("points lost at the top\nwithout this step alone")


def _places(info: LadderInfo) -> list[tuple[int, pd.Series]]:
    """Each rung with its place on the vertical axis, the base on top."""
    rows = [rung for _, rung in info.rungs.iterrows()]
    return [(len(rows) - 1 - i, rung) for i, rung in enumerate(rows)]


def _draw_interval(axes: Any, place: int, mean: float, low: float, high: float, colour: str) -> None:
    """A mean with its interval; the mean alone where the interval is unbounded."""
    if np.isfinite(low):
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2)
    axes.plot([mean], [place], "D", color=colour, markersize=4)
