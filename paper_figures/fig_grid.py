"""Data or updates? The gap to full precision over both, and accuracy against the length of training."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from ablate.config.objectives import AXES
from ablate.labels import left_to_right, shortened, shortened_alike
from ablate.paper_figures.grid_info import VIEWS_LABEL, LearningCurve, Surface
from ablate.paper_figures.palette import GREY
from ablate.paper_figures.style import LONGEST, figure, legend, markers, set_title_of_all, sizes

MAX_COLUMNS = 3  # panels beside each other
DARK = 0.65  # of the colour scale, above which letters are white


def draw(surfaces: dict[str, Surface], title: str, path: Path) -> None:
    """Write path.pdf and path.png: a panel an arm, with the gap in points in each cell.

    Grey letters: the interval of the gap holds 0. Hatched: the longest training at a size where the arm or
    full precision still rises.

    Args:
        surfaces: By arm.
        title: Above the panels.
        path: Of the files, without their endings.
    """
    limit = max(1.0, max(np.nanmax(np.abs(each.gap.to_numpy()), initial=0) for each in surfaces.values()))
    rows, columns, width = _layout(len(surfaces))
    cells = max(len(each.gap) for each in surfaces.values())
    height = 0.5 + rows * (0.9 + 0.25 * cells)
    with figure(path, height, width, nrows=rows, ncols=columns, squeeze=False) as panels:
        for axes, (arm, surface) in _filled(panels, list(surfaces.items())):
            _draw_surface(axes, surface, limit)
            axes.set_title(left_to_right(shortened(arm, LONGEST)), fontsize=7)
        for axes in panels[-1]:
            axes.set_xlabel(AXES["images"].label)
        for axes in panels[:, 0]:
            axes.set_ylabel(VIEWS_LABEL)
        set_title_of_all(panels[0, 0].figure, title, width)


def _draw_surface(axes: Any, surface: Surface, limit: float) -> None:
    gap = surface.gap.to_numpy()
    axes.imshow(gap, cmap="PuOr_r", vmin=-limit, vmax=limit, origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(gap):
        if np.isfinite(value):
            clear = surface.low.iat[i, j] > 0 or surface.high.iat[i, j] < 0
            colour = "white" if abs(value) > DARK * limit else "black" if clear else GREY
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=6, color=colour)
    for j in np.flatnonzero(surface.censored):
        corner = (j - 0.5, len(gap) - 1.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=GREY, linewidth=0))
    for axis, names in ((axes.xaxis, surface.gap.columns), (axes.yaxis, surface.gap.index)):
        axis.set_ticks(range(len(names)), [f"{name:,}" for name in names], fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_curves(curves: dict[int, dict[str, LearningCurve]], title: str, path: Path) -> None:
    """Write path.pdf and path.png: a panel a size of the training set; filled: an arm's best length.

    Args:
        curves: By size and arm.
        title: Above the panels.
        path: Of the files, without their endings.
    """
    rows, columns, width = _layout(len(curves))
    arms = list(dict.fromkeys(arm for of_size in curves.values() for arm in of_size))
    names, lines = dict(zip(arms, shortened_alike(arms, LONGEST), strict=True)), dict[str, Any]()
    shape = markers(arms) | {"full": "h"}  # a cross cannot be filled
    height = 0.6 + 1.7 * rows + 0.14 * len(arms)
    panels_at = {"nrows": rows, "ncols": columns, "squeeze": False, "sharey": True}
    with figure(path, height, width, **panels_at) as panels:
        for axes, (images, of_size) in _filled(panels, list(curves.items())):
            for arm, curve in of_size.items():
                lines[left_to_right(names[arm])] = _draw_curve(axes, curve, shape[arm])
            axes.set_title(f"{images:,} images", fontsize=7)
            axes.set_xscale("log")
            sizes(axes.xaxis, [int(n) for curve in of_size.values() for n in curve.points["views"]])
            axes.tick_params(labelsize=6)
        for axes in panels[-1]:
            axes.set_xlabel(VIEWS_LABEL)
        for axes in panels[:, 0]:
            axes.set_ylabel("accuracy (%)")
        set_title_of_all(panels[0, 0].figure, title, width)
        legend(panels[0, 0].figure, lines, fontsize=6, loc="outside lower center")


def _draw_curve(axes: Any, curve: LearningCurve, marker: str) -> Any:
    points, style = curve.points, {"color": curve.colour, "markersize": 4}
    ends = [(points["accuracy"] - points["low"]).fillna(0), (points["high"] - points["accuracy"]).fillna(0)]
    axes.errorbar(points["views"], points["accuracy"], ends, color=curve.colour, linewidth=0.8, capsize=2)
    line = axes.plot(points["views"], points["accuracy"], marker, markerfacecolor="white", **style)[0]
    best = points[points["views"] == curve.best]
    axes.plot(best["views"], best["accuracy"], marker, **style)
    return line


def _layout(panels: int) -> tuple[int, int, int]:
    """Rows and columns of panels, and columns of the page."""
    columns = 2 if panels == 4 else min(panels, MAX_COLUMNS)
    return -(-panels // columns), columns, 1 if columns == 1 else 2


def _filled(panels: Any, parts: list[Any]) -> list[tuple[Any, Any]]:
    """Each part with its axes; those left over are hidden."""
    for axes in panels.flat[len(parts) :]:
        axes.set_visible(False)
    return list(zip(panels.flat, parts, strict=False))
