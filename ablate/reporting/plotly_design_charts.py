"""A designed study as plotly figures: costs of layer groups, error and gap over data, the ladder."""

import numpy as np
import pandas as pd

from ablate.config.objectives import AXES
from ablate.formatting import natural_sort_key
from ablate.labels import shortened, shortened_alike
from ablate.paper_figures.gap_info import ArmGap, gap_info
from ablate.paper_figures.ladder_info import LadderInfo, ladder_info
from ablate.paper_figures.palette import BLACK, BLUE, GREY
from ablate.paper_figures.scaling_info import Y_LABEL, ErrorCurve, scaling_info
from ablate.paper_figures.sensitivity_info import sensitivity_info
from ablate.reporting.plotly_panel import (
    MAX_NAME,
    Panel,
    Plain,
    axis_layout,
    band,
    escaped,
    escaped_lines,
    half_widths,
    interval,
    logarithmic,
    named_rows,
    numbers,
)
from ablate.reporting.run_results import Finding

MAX_NAMED = 40  # layer groups with a name below them


def sensitivity(finding: Finding, objectives: list[str]) -> list[Panel]:
    """What each layer group costs, a panel a condition of the other groups."""
    table, panels = finding.tables["sensitivity"], []
    info, contrasts = sensitivity_info(table), table["contrasts"].max()
    joint = f"; 95 % intervals, simultaneous over {contrasts} contrasts" if contrasts else ""
    for condition, by_precision in info.costs.items():
        known = {precision: rows.dropna(subset="cost") for precision, rows in by_precision.items()}
        traces = [
            _costs(precision, rows, info.colours[precision]) for precision, rows in known.items() if len(rows)
        ]
        found = {group for rows in known.values() for group in rows.index}
        groups = sorted(found, key=natural_sort_key)
        shown = groups[:: -(-len(groups) // MAX_NAMED)] if groups else []
        x = {
            "type": "category",  # names that look like numbers are names
            "categoryorder": "array",
            "categoryarray": [escaped(group) for group in groups],
            "tickvals": [escaped(group) for group in shown],
            "ticktext": [escaped(name) for name in shortened_alike(shown, MAX_NAME)],
            "tickangle": -60,
        }
        y = {"title": {"text": "cost (points)"}, "zeroline": True}
        if traces:
            title = f"Cost in accuracy, {condition}{joint}"
            panels.append(Panel(title, traces, {"xaxis": x, "yaxis": y}, 380))
    return panels


def _costs(precision: str, costs: pd.DataFrame, colour: str) -> Plain:
    rows = costs.loc[sorted(costs.index, key=natural_sort_key)]
    return {
        "x": [escaped(group) for group in rows.index],
        "y": numbers(rows["cost"]),
        "mode": "lines+markers",
        "name": precision,
        "marker": {"color": colour},
        "error_y": half_widths(rows["half_width"]),
        "hovertemplate": "%{x}: %{y:.2f} points<extra>%{fullData.name}</extra>",
    }


def scaling(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The error of each arm over the volume of data, with the fitted law."""
    points = finding.tables["points"]
    curves = scaling_info(points, finding.tables["bands"], finding.tables["laws"])
    traces = [trace for arm, curve in curves.items() for trace in _error_curve(arm, curve)]
    layout = {
        "xaxis": axis_layout(AXES["images"], points["images"]),
        "yaxis": logarithmic({"title": {"text": Y_LABEL}}, points["error"]),
    }
    title = (
        "Error against training images: trials, and the fitted law with its 95 % band; means with 95 % "
        "intervals where lack of fit rejects the law"
    )
    return [Panel(title, traces, layout, 420)]


def _error_curve(arm: str, curve: ErrorCurve) -> list[Plain]:
    trials, fit, name = curve.trials, curve.band, escaped(shortened(arm, MAX_NAME))
    line = {
        "x": numbers(fit["images"]),
        "y": numbers(fit["error"]),
        "mode": "lines",
        "hoverinfo": "skip",
        "line": {"color": curve.colour, "width": 2},
        "showlegend": False,
    }
    traces = [line]
    if curve.rejected:
        name += ": law rejected"
        line["line"] = {"color": curve.colour, "width": 1, "dash": "dot"}
        low = {"symmetric": False, "arrayminus": numbers(fit["error"] - fit["low"])}
        line["error_y"] = {**interval(fit["error"], fit["high"]), **low, "width": 4}
    else:
        traces = [*band(fit["images"], fit["low"], fit["high"], curve.colour), line]
    dots = {
        "x": numbers(trials["images"]),
        "y": numbers(trials["error"]),
        "mode": "markers",
        "name": name,
        "marker": {"color": curve.colour, "size": 6, "opacity": 0.55},
        "legendgroup": arm,
        "hovertemplate": "%{x:,} images: %{y:.1f} %<extra>%{fullData.name}</extra>",
    }
    return [*(traces if len(fit) else []), dots]


def volume(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The gap of each arm to full precision over the volume of data."""
    gaps, verdicts = finding.tables["gaps"].dropna(subset="gap"), finding.tables["verdicts"]
    if gaps.empty:
        return []
    arms = gap_info(gaps, verdicts)
    shift = (len(arms) - 1) / 2  # side by side
    traces = [_gap(name, arm, 1.02 ** (i - shift)) for i, (name, arm) in enumerate(arms.items())]
    y = {"title": {"text": "gap (points)"}, "zeroline": True, "rangemode": "tozero"}
    title = "Gap to full precision against training images: mean, simultaneous 95 % intervals"
    if not verdicts["same_recipe"].all():
        title += " (* to another recipe: recipe and quantization together)"
    return [Panel(title, traces, {"xaxis": axis_layout(AXES["images"], gaps["images"]), "yaxis": y}, 420)]


def _gap(name: str, arm: ArmGap, shift: float) -> Plain:
    rows = arm.sizes
    star = "" if arm.same_recipe else " *"
    return {
        "x": numbers(rows["images"] * shift),
        "y": numbers(rows["gap"]),
        "name": f"{escaped(shortened(name, MAX_NAME))}: {arm.verdict['verdict']}{star}",
        "mode": "lines+markers",
        "marker": {"color": arm.colour, "size": 8},
        "line": {"color": arm.colour, "width": 1.5},
        "error_y": {**interval(rows["gap"], rows["high"]), "width": 4},
        "customdata": numbers(rows["images"]),
        "hovertemplate": "%{customdata:,} images: %{y:.1f} points<extra>%{fullData.name}</extra>",
    }


def ladder(finding: Finding, objectives: list[str]) -> list[Panel]:
    """Accuracy rung by rung, the base on top."""
    table = finding.tables["ladder"]
    info = ladder_info(table, finding.tables["ladder_seeds"])
    names = list(info.rungs["rung"])
    places = [len(names) - 1 - i for i in range(len(names))]
    ticks = [escaped_lines(name, 22) for name in names]
    y = {**named_rows(names), "tickvals": places, "ticktext": ticks}
    title = "Test accuracy rung by rung; above each its gain over the rung before, in points"
    if (means := table["means"].max()) > 0:
        title += f"; 95 % intervals, simultaneous over {means} means; grey: a gain that, over "
        title += f"{table['contrasts'].max()} gains and costs, cannot be told from 0"
    layout = {"xaxis": {"title": {"text": "test accuracy (%)"}}, "yaxis": y}
    return [Panel(title, _rungs(info, places), layout, 130 + 44 * len(names))]


def _rungs(info: LadderInfo, places: list[int]) -> list[Plain]:
    """A trace of the seeds and one of their means."""
    rungs = info.rungs
    seeds = [(value, place) for s, place in zip(info.seeds.values(), places, strict=True) for value in s]
    dots = {
        "x": numbers([value for value, _ in seeds]),
        "y": [place for _, place in seeds],
        "mode": "markers",
        "name": "a seed",
        "marker": {"color": BLUE, "size": 6, "opacity": 0.4},
        "hovertemplate": "%{x:.1f} %<extra></extra>",
    }
    means = {
        "x": numbers(rungs["mean"]),
        "y": places,
        "mode": "markers+text",
        "name": "mean, 95 % interval",
        "text": ["" if np.isnan(gain) else f"  {gain:+.1f}" for gain in rungs["gain"]],
        "textfont": {"color": [BLACK if clear else GREY for clear in rungs["gain_clear"]]},
        "textposition": "top center",
        "hovertemplate": "%{x:.1f} %<extra></extra>",
        "cliponaxis": False,
        "error_x": interval(rungs["mean"], rungs["high"]),
        "marker": {"color": BLUE, "size": 10, "symbol": "diamond"},
    }
    return [dots, means]
