"""The Pareto front of a study: its first objective against its second, its third as colour; of one objective its course."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ablate.config.objectives import AXES, OBJECTIVES, Axis
from ablate.paper_figures.palette import GREY
from ablate.paper_figures.style import figure, plain, set_title

TRIAL = Axis("trial", "trial")


def draw(trials: pd.DataFrame, objectives: Sequence[str], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    trials: a row a complete trial with its objectives, `front` (bool: on the front over all objectives), `stairs` (bool:
    on the front over the first two) and `label` (text beside the point, or ""). One objective is drawn trial by trial, in
    the order of the rows, with the best so far.
    """
    trials = trials.assign(trial=np.arange(1, len(trials) + 1))
    x, y = AXES[objectives[1]] if len(objectives) > 1 else TRIAL, AXES[objectives[0]]
    colour = AXES[objectives[2]] if len(objectives) > 2 else None
    with figure(path) as axes:
        beaten, front = trials[~trials["front"]], trials[trials["front"]]
        stairs = trials[trials["stairs"]].sort_values(x.name)
        steps = (
            "steps-pre" if OBJECTIVES.get(x.name) == "max" else "steps-post"
        )  # what a point attains lies on its worse side
        if x is TRIAL:
            best = trials[y.name].cummax() if OBJECTIVES[y.name] == "max" else trials[y.name].cummin()
            stairs = trials.assign(**{y.name: best})
        axes.plot(x(stairs), y(stairs), color=GREY, linewidth=0.8, drawstyle=steps, zorder=1)
        axes.scatter(x(beaten), y(beaten), s=14, color=GREY, marker="x", linewidths=0.8)
        norm = LogNorm() if colour and colour.scale == "log" else None
        look = {"c": colour(front), "cmap": "cividis", "norm": norm} if colour else {"color": "black"}
        points = axes.scatter(x(front), y(front), s=26, edgecolors="black", linewidths=0.5, zorder=2, **look)
        if colour:
            bar = axes.figure.colorbar(points, label=colour.label)
            plain(bar.ax.yaxis)
        axes.set(xscale=x.scale, xlabel=x.label, ylabel=y.label)
        set_title(axes, title)
        axes.margins(0.1)
        plain(axes.xaxis)
        handles = [
            Line2D(
                [],
                [],
                marker="o",
                color="none",
                markeredgecolor="black",
                markerfacecolor="white",
                markersize=5,
            )
        ]
        handles += [Line2D([], [], marker="x", color="none", markeredgecolor=GREY, markersize=4)] * bool(
            len(beaten)
        )
        names = ["the best", "the others"] if x is TRIAL else ["on the front", "beaten"]
        legend = axes.legend(handles, names[: len(handles)], loc="best", handletextpad=0.1)
        axes.figure.draw_without_rendering()  # from here on a point's place on the page is known
        taken, points = [legend.get_window_extent()], np.column_stack([x(trials), y(trials)])
        for _, trial in (
            trials[trials["label"] != ""].sort_values(x.name, ascending=False, kind="stable").iterrows()
        ):
            taken.append(_name(axes, trial["label"], (x(trial), y(trial)), points, taken))


def _name(axes: Any, text: str, at: tuple[float, float], points: Any, taken: list[Bbox]) -> Bbox:
    """A label beside a point, where it hides the fewest of all points (N, 2) and keeps off what is taken; its place."""
    look = {"fontsize": 7, "va": "center", "bbox": {"color": "white", "alpha": 0.8, "pad": 0.5}, "zorder": 3}
    line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    places = axes.transData.transform(points)
    label = axes.annotate(text, at, (0, 0), textcoords="offset points", arrowprops=line, **look)
    label.set_in_layout(False)

    def box(shift: tuple[float, float, str]) -> Bbox:
        label.set(position=shift[:2], ha=shift[2])
        label.get_window_extent()  # moves it; with its line, which may pass a point
        return Text.get_window_extent(label).padded(4)

    def hidden(shift: tuple[float, float, str]) -> float:
        place = box(shift)
        outside = not axes.bbox.fully_containsx(place.x0) or not axes.bbox.fully_containsx(place.x1)
        return place.count_contains(places) + 10 * (place.count_overlaps(taken) + outside)

    sides = ((1, "left"), (-1, "right"))
    shifts = [(sign * dx, dy, side) for dx in (8, 20) for dy in (8, -12, 20, -26) for sign, side in sides]
    return box(min(shifts, key=hidden))
