"""The ladder: accuracy rung by rung from the paper's recipe to ours, and what each step is worth at the top."""

from pathlib import Path

import numpy as np
import pandas as pd

from ablate.labels import shortened
from ablate.paper_figures.palette import BLUE, GREY, VERMILLION
from ablate.paper_figures.style import LONGEST, figure, set_title


def draw(
    rungs: pd.DataFrame, seeds: pd.DataFrame, title: str, path: Path, reference: str | None = None
) -> None:
    """Write path.pdf and path.png.

    rungs: the table of `analysis.paired.ladder`, the base first. seeds: (seeds, cells) accuracies, as `by_seed` gives.
    reference: the rung that is drawn as a vertical line too.
    """
    y = np.arange(len(rungs))[::-1]
    costs = rungs["cost"].notna().any()
    panels = {"ncols": 1 + costs, "width_ratios": [3, 1.4][: 1 + costs], "sharey": True, "squeeze": False}
    with figure(path, 0.9 + 0.3 * len(rungs), 2, **panels) as grid:
        axes = grid[0, 0]
        for place, (_, rung) in zip(y, rungs.iterrows(), strict=True):
            colour = GREY if rung["rung"] == reference else BLUE
            points = 100 * seeds[rung["rung"]].dropna()
            axes.plot(
                points,
                np.full(len(points), place),
                "o",
                color=colour,
                markersize=2.5,
                alpha=0.4,
                markeredgewidth=0,
            )
            _interval(axes, place, rung["mean"], rung["low"], rung["high"], colour)
            if np.isfinite(rung["gain"]):
                text = f"{100 * rung['gain']:+.1f}" + _half(rung["gain"], rung["gain_low"])
                axes.annotate(
                    text,
                    (1.0, place),
                    xycoords=("axes fraction", "data"),
                    fontsize=7,
                    ha="right",
                    va="center",
                )
        if reference in set(rungs["rung"]):
            top = rungs.loc[rungs["rung"] == reference, "mean"].iloc[0]
            axes.axvline(100 * top, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.set(xlabel="test accuracy (%), and the gain over the rung before")
        axes.set_yticks(y, [shortened(rung, 2 * LONGEST) for rung in rungs["rung"]])
        axes.margins(x=0.05)
        axes.set_xlim(right=axes.get_xlim()[1] + 0.22 * np.diff(axes.get_xlim())[0])
        set_title(axes, title)
        if costs:
            axes = grid[0, 1]
            axes.axvline(0, color=GREY, linewidth=0.6)
            for place, (_, rung) in zip(y, rungs.iterrows(), strict=True):
                if np.isfinite(rung["cost"]):
                    _interval(axes, place, rung["cost"], rung["cost_low"], rung["cost_high"], VERMILLION)
            axes.set_xlabel("points lost at the top\nwithout this step alone")


def _interval(axes: object, place: float, centre: float, low: float, high: float, colour: str) -> None:
    """A mean with its interval; the mean alone where the interval is unbounded."""
    if np.isfinite(low):
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.2)  # type: ignore[attr-defined]
    axes.plot([100 * centre], [place], "D", color=colour, markersize=4)  # type: ignore[attr-defined]


def _half(centre: float, low: float) -> str:
    return f" ± {100 * (centre - low):.1f}" if np.isfinite(low) else ""
