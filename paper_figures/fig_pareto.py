"""The Pareto front of a study: first objective over second, the third as colour; one alone trial by trial."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from ablate.paper_figures.front_curve import FrontCurve
from ablate.paper_figures.palette import BLUE, GREY, VERMILLION
from ablate.paper_figures.pareto_info import TRIAL, ParetoInfo
from ablate.paper_figures.style import figure, lay_out, plain, set_title

STEPS: dict[str, Any] = {"color": GREY, "linewidth": 0.8}
LINE: dict[str, Any] = {"color": BLUE, "linewidth": 1}
SPREAD: dict[str, Any] = {"ecolor": VERMILLION, "elinewidth": 1.2, "capsize": 4, "capthick": 1.2}
BAND: dict[str, Any] = {"color": BLUE, "linewidth": 0, "alpha": 0.15}


def draw(info: ParetoInfo, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        info: Of the front.
        title: Above the axes.
        path: Of the files, without their endings.
    """
    with figure(path, 3.0 if info.curve else 2.6) as axes:
        _draw_trials(axes, info)
        if info.curve:
            _draw_curve(axes, info.curve)
        axes.set(xscale="log" if info.log_x else "linear", xlabel=info.x.label, ylabel=info.y.label)
        set_title(axes, title)
        axes.margins(0.1)
        plain(axes.xaxis)
        legend = _draw_legend(axes, info)
        lay_out(axes.figure)
        taken, points = [legend.get_window_extent()], info.trials[["x", "y"]].to_numpy(dtype=float)
        labelled = info.trials[info.trials["label"] != ""]
        for _, trial in labelled.sort_values("x", ascending=False, kind="stable").iterrows():
            taken.append(_draw_label(axes, trial["label"], (trial["x"], trial["y"]), points, taken))


def _draw_trials(axes: Any, info: ParetoInfo) -> None:
    beaten, front = info.trials[~info.trials["front"]], info.trials[info.trials["front"]]
    steps = "steps-pre" if info.drops_before_points else "steps-post"
    axes.plot(info.stairs["x"], info.stairs["y"], drawstyle=steps, zorder=1, **STEPS)
    axes.scatter(beaten["x"], beaten["y"], s=14, color=GREY, marker="x", linewidths=0.8)
    if len(info.spread):
        middle = (info.spread["low"] + info.spread["high"]) / 2
        half = (info.spread["high"] - info.spread["low"]) / 2
        axes.errorbar(info.spread["x"], middle, half, fmt="none", zorder=3, **SPREAD)
    marks: dict[str, Any] = {"s": 26, "edgecolors": "black", "linewidths": 0.5, "zorder": 2}
    if info.colour is None:
        axes.scatter(front["x"], front["y"], color="black", **marks)
        return
    norm = LogNorm() if info.log_colour else None
    points = axes.scatter(front["x"], front["y"], c=front["colour"], cmap="cividis", norm=norm, **marks)
    bar = axes.figure.colorbar(points, label=info.colour.label)
    plain(bar.ax.yaxis)


def _draw_curve(axes: Any, curve: FrontCurve) -> None:
    rows = curve.rows
    if curve.is_joined:
        axes.fill_between(rows["x"], rows["low"], rows["high"], zorder=0, **BAND)
        axes.plot(rows["x"], rows["y"], zorder=1, **LINE)
    else:
        ends = [rows["y"] - rows["low"], rows["high"] - rows["y"]]
        axes.errorbar(rows["x"], rows["y"], ends, fmt="_", capsize=3, markersize=8, zorder=3, **LINE)


def _draw_legend(axes: Any, info: ParetoInfo) -> Any:
    circle: dict[str, Any] = {
        "marker": "o",
        "markeredgecolor": "black",
        "markerfacecolor": "white",
        "markersize": 5,
    }
    cross: dict[str, Any] = {"marker": "x", "markeredgecolor": GREY, "markersize": 4}
    marks = [circle] if info.trials["front"].all() else [circle, cross]
    names = ["the best", "the others"] if info.x is TRIAL else ["on the front", "beaten"]
    handles: list[Any] = [Line2D([], [], color="none", **mark) for mark in marks]
    names = names[: len(handles)]
    if len(info.spread):
        handles.append(Line2D([], [], marker="|", markersize=9, markeredgewidth=1.2, color=VERMILLION, lw=0))
        names.append("range over seeds")
    if (curve := info.curve) is None:
        return axes.legend(handles, names, loc="best", handletextpad=0.1)
    line = Line2D([], [], **LINE)
    handles.append(Line2D([], [], **STEPS))
    handles.append((Patch(**BAND), line) if curve.is_joined and curve.has_band else line)
    style = {"ncols": 2, "fontsize": 7, "columnspacing": 1, "handlelength": 1.5}
    names += ["steps of the front", curve.name]
    return axes.figure.legend(handles, names, loc="outside lower center", **style)


def _draw_label(
    axes: Any, text: str, at: tuple[float, float], points: NDArray[np.float64], taken: list[Bbox]
) -> Bbox:
    """Write a label beside a point, where it hides the fewest points (N, 2) and none of the taken places.

    Returns the place of the label.
    """
    style = {"fontsize": 7, "va": "center", "bbox": {"color": "white", "alpha": 0.8, "pad": 0.5}, "zorder": 3}
    line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    places = axes.transData.transform(points)
    label = axes.annotate(text, at, (0, 0), textcoords="offset points", arrowprops=line, **style)
    label.set_in_layout(False)

    def box(offset: tuple[float, float, str]) -> Bbox:
        label.set(position=offset[:2], ha=offset[2])
        label.get_window_extent()  # moves the label; this extent includes its line, which may cross a point
        return Text.get_window_extent(label).padded(4)

    def hidden(offset: tuple[float, float, str]) -> float:
        place = box(offset)
        outside = not (axes.bbox.fully_contains(*place.p0) and axes.bbox.fully_contains(*place.p1))
        return place.count_contains(places) + 10 * (place.count_overlaps(taken) + outside)

    sides = ((1, "left"), (-1, "right"))
    offsets = [(sign * dx, dy, side) for dx in (8, 20) for dy in (8, -12, 20, -26) for sign, side in sides]
    return box(min(offsets, key=hidden))
