"""Several runs side by side as plotly figures: their fronts, and how far they are from the first."""

from itertools import cycle

import pandas as pd

from ablate.config.objectives import AXES, COLUMNS, OBJECTIVES, SIGN, cell
from ablate.paper_figures.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from ablate.reporting.comparison import Comparison
from ablate.reporting.plotly_panel import (
    Panel,
    Plain,
    axis_layout,
    escaped,
    escaped_lines,
    named_rows,
    numbers,
)
from ablate.reporting.run_results import Finding

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
Corners = list[tuple[float, float]]


def comparison_panels(name: str, finding: Finding, compared: Comparison) -> list[Panel]:
    """The figures of a finding of the comparison; none where there is nothing to draw."""
    if name == "fronts" and len(compared.objectives) > 1:
        return [_fronts(finding, compared)]
    if name == "differences" and finding and finding.tables["differences"]["low"].notna().any():
        return [_differences(finding.tables["differences"])]
    return []


def _fronts(finding: Finding, compared: Comparison) -> Panel:
    y, x = (AXES[name] for name in compared.objectives[:2])
    members, attained = finding.tables["front_members"], finding.tables["front_attained"]
    shown = members.assign(x=x(members), y=y(members))
    ends = _worst(shown["x"], x.name), _worst(shown["y"], y.name)
    traces: list[Plain] = []
    for group, colour in zip(compared.groups, cycle(COLOURS), strict=False):
        rows = attained[attained["runs"] == group.label]
        steps = {
            level: _steps([*zip(x(part), y(part), strict=True)], ends, OBJECTIVES[x.name] == "min")
            for level, part in rows.groupby("level")
        }
        if not steps:
            continue
        if len(group.trials) > 1 and 1.0 in steps:
            traces.append(_band(steps[min(steps)], steps[1.0], colour))
        line = steps.get(0.5, steps[max(steps)])[1:-1]  # without the ways to the edges
        traces.append(_trace(line, group.label, {"mode": "lines", "line": {"color": colour, "width": 2}}))
        own = shown[shown["runs"] == group.label]
        marks = {"mode": "markers", "marker": {"color": colour, "size": 6}, "showlegend": False}
        texts = {"text": _hover_texts(own, compared.objectives), "hovertemplate": "%{text}<extra></extra>"}
        traces.append(_trace([*zip(own["x"], own["y"], strict=True)], group.label, marks | texts))
    axes = {"xaxis": axis_layout(x, shown["x"]), "yaxis": axis_layout(y, shown["y"])}
    title = f"{y.label} against {x.label}: what half of the seeds attain, from all of them to one"
    return Panel(title, traces, {**axes, "hovermode": "closest"}, 480)


def _worst(values: "pd.Series[float]", objective: str) -> float:
    return float(values.max() if SIGN[OBJECTIVES[objective]] > 0 else values.min())


def _steps(corners: Corners, ends: tuple[float, float], x_is_min: bool) -> Corners:
    """The outline of what corners attain, from the worst y to the worst x."""
    ordered = sorted(corners, reverse=not x_is_min)
    outline = [(ordered[0][0], ends[1])]
    for place, (x, y) in enumerate(ordered):
        if place:
            outline.append((x, ordered[place - 1][1]))
        outline.append((x, y))
    return [*outline, (ends[0], ordered[-1][1]), (ends[0], ends[1])]


def _band(best: Corners, least: Corners, colour: str) -> Plain:
    """What lies between two outlines."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = {"fill": "toself", "fillcolor": f"rgba({red}, {green}, {blue}, 0.15)", "line": {"width": 0}}
    return _trace(
        [*best, *reversed(least)], "", {"mode": "lines", "hoverinfo": "skip", "showlegend": False, **fill}
    )


def _trace(places: Corners, name: str, how: Plain) -> Plain:
    xs, ys = zip(*places, strict=True)
    return {"x": numbers(xs), "y": numbers(ys), "name": escaped(name), **how}


def _hover_texts(trials: pd.DataFrame, objectives: list[str]) -> list[str]:
    texts = []
    for trial in trials.to_dict("records"):
        values = [f"{COLUMNS[name]}: {cell(name, trial[name])}" for name in objectives]
        lines = [f"<b>{escaped(trial['trial'])}</b>", f"seed {trial['seed']}", *map(escaped, values)]
        texts.append("<br>".join([*lines, escaped_lines(trial["layers"], 36)]))
    return texts


def _differences(table: pd.DataFrame) -> Panel:
    """The differences of each group, one below the other, with their intervals."""
    rows = table[table["low"].notna()].iloc[::-1].reset_index(drop=True)
    ends = {"array": numbers(rows["high"] - rows["mean"]), "arrayminus": numbers(rows["mean"] - rows["low"])}
    trace = {
        "x": numbers(rows["mean"]),
        "y": list(range(len(rows))),
        "mode": "markers",
        "marker": {"color": BLUE, "size": 7},
        "error_x": {**ends, "symmetric": False, "thickness": 1.5, "width": 0},
        "showlegend": False,
        "text": [escaped(f"{row['runs']}: {row['of']}") for row in rows.to_dict("records")],
        "hovertemplate": "%{text}<br>%{x:.3g}<extra></extra>",
    }
    several = rows["runs"].nunique() > 1
    names = [f"{row['runs']}: {row['of']}" if several else row["of"] for row in rows.to_dict("records")]
    x = {"title": {"text": "difference (unit as in the table)"}, "zeroline": True, "rangemode": "tozero"}
    title = "Differences, with simultaneous 95 % intervals"
    return Panel(title, [trace], {"xaxis": x, "yaxis": named_rows(names)}, 150 + 26 * len(rows))
