"""A grid of data and updates as plotly figures: surfaces, the gaps that are judged, learning curves."""

import numpy as np

from ablate.config.objectives import AXES
from ablate.labels import shortened
from ablate.paper_figures.grid_info import VIEWS_LABEL, LearningCurve, Surface, learning_curves, surfaces
from ablate.reporting import plotly_design_charts
from ablate.reporting.grid_findings import at_best_lengths
from ablate.reporting.plotly_panel import MAX_NAME, Panel, Plain, escaped, interval, logarithmic, numbers
from ablate.reporting.run_results import Finding

DIVERGING = [[0, "#542788"], [0.5, "#f7f7f7"], [1, "#b35806"]]  # ColorBrewer's PuOr, as in print


def grid(finding: Finding, objectives: list[str]) -> list[Panel]:
    """A surface an arm, the gaps that the verdicts rest on, and learning curves, a panel a size."""
    tables = finding.tables
    found = surfaces(tables["surface"], tables["lengths"])
    limit = max(1.0, max(np.nanmax(np.abs(each.gap.to_numpy()), initial=0) for each in found.values()))
    panels = [_surface(arm, each, limit) for arm, each in found.items()]
    panels += plotly_design_charts.volume(at_best_lengths(finding), objectives)
    curves = learning_curves(tables["learning"], tables["lengths"])
    return panels + [_curves(images, of_size) for images, of_size in curves.items()]


def _surface(arm: str, surface: Surface, limit: float) -> Panel:
    gap = surface.gap
    ends = np.stack([surface.low, surface.high], axis=-1)
    heat = {
        "type": "heatmap",
        "x": [f"{size:,}" for size in gap.columns],
        "y": [f"{views:,}" for views in gap.index],
        "z": [numbers(row) for row in gap.to_numpy()],
        "zmin": -limit,
        "zmax": limit,
        "colorscale": DIVERGING,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "texttemplate": "%{z:.1f}",
        "customdata": [[numbers(pair) for pair in row] for row in ends],
        "hovertemplate": "%{x} images, %{y} views: %{z:.1f} points "
        "(%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>",
    }
    rising = [f"{size:,}" for size in gap.columns[surface.censored]]
    names = [escaped(shortened(name, MAX_NAME)) for name in (arm, surface.baseline)]
    title = f"Gap of {' to '.join(names)} (points)"
    if rising:
        title += f"; not trained to the end at {' and '.join(rising)} images"
    x = {"type": "category", "title": {"text": AXES["images"].label}}
    y = {"type": "category", "title": {"text": VIEWS_LABEL}}
    return Panel(title, [heat], {"xaxis": x, "yaxis": y}, 160 + 44 * len(gap), wide=False)


def _curves(images: int, curves: dict[str, LearningCurve]) -> Panel:
    traces = [_curve(arm, curve) for arm, curve in curves.items()]
    views = next(iter(curves.values())).points["views"]
    layout = {
        "xaxis": logarithmic({"title": {"text": VIEWS_LABEL}}, views),
        "yaxis": {"title": {"text": "accuracy (%)"}},
    }
    title = f"Accuracy against the length of training, {images:,} images: mean, 95 % intervals"
    return Panel(title, traces, layout, 320, wide=False)


def _curve(arm: str, curve: LearningCurve) -> Plain:
    points = curve.points
    best = points["views"] == curve.best
    return {
        "x": numbers(points["views"]),
        "y": numbers(points["accuracy"]),
        "name": escaped(shortened(arm, MAX_NAME)),
        "mode": "lines+markers",
        "line": {"color": curve.colour, "width": 1.5},
        "marker": {
            "color": curve.colour,
            "size": 8,
            "symbol": ["circle" if at else "circle-open" for at in best],
        },
        "error_y": {**interval(points["accuracy"], points["high"]), "width": 4},
        "hovertemplate": "%{x:,} views: %{y:.1f} %<extra>%{fullData.name}</extra>",
    }
