"""The Pareto front of a study: its first objective against its second, its third as colour."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.colors import LogNorm

from ablate.paper_figures.style import GREY, axis, figure


def draw(trials: pd.DataFrame, objectives: Sequence[str], path: Path) -> None:
    """Write path.pdf and path.png.

    trials: a row a complete trial with its objectives, `front` (bool: on the front over all objectives), `stairs` (bool:
    on the front over the first two) and `label` (text beside the point, or "").
    """
    x, y = (axis(objectives[i]) for i in (min(1, len(objectives) - 1), 0))
    colour = axis(objectives[2]) if len(objectives) > 2 else None
    with figure(path) as axes:
        beaten, front = trials[~trials["front"]], trials[trials["front"]]
        stairs = trials[trials["stairs"]].sort_values(x.name)
        axes.plot(x(stairs), y(stairs), color=GREY, linewidth=0.8, drawstyle="steps-post", zorder=1)
        axes.scatter(x(beaten), y(beaten), s=14, color=GREY, marker="x", linewidths=0.8, label="beaten")
        look = {"c": colour(front), "cmap": "cividis", "norm": LogNorm()} if colour else {"color": "black"}
        points = axes.scatter(
            x(front), y(front), s=26, edgecolors="black", linewidths=0.5, zorder=2, label="on the front", **look
        )
        for _, trial in trials[trials["label"] != ""].iterrows():
            axes.annotate(trial["label"], (x(trial), y(trial)), (4, -9), textcoords="offset points", fontsize=7)
        if colour:
            axes.figure.colorbar(points, label=colour.label)
        axes.set(xscale=x.scale, xlabel=x.label, ylabel=y.label)
        axes.margins(0.12)
        axes.legend(loc="best", handletextpad=0.1)
