"""What the trials of a run show as plotly figures: hypervolume, parameters, layers, confusions."""

import pandas as pd

from ablate.config.objectives import AXES, COLUMNS
from ablate.formatting import natural_sort_key
from ablate.labels import shortened_alike
from ablate.paper_figures.confusion_info import ConfusionInfo, classes_of, confusion_info
from ablate.paper_figures.importance_info import importance_info
from ablate.paper_figures.palette import BLACK, BLUE, colours
from ablate.reporting.plotly_panel import Panel, Plain, escaped, interval, named_rows, numbers
from ablate.reporting.run_results import Finding

MAX_PARAMETERS = 15  # of a panel
WITHIN_CHANCE = "#c4c4c4"  # the colour of a bar
MAX_CLASSES = 100  # of a confusion matrix that can still be read
MAX_WITH_COUNTS = 12  # classes of a matrix whose counts stand in the cells
MAX_NAMED = 20  # classes with a name beside their row
MAX_CLASS_NAME = 16  # letters


def progress(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The hypervolume of the front over the trials."""
    table = finding.tables["hypervolume"]
    trace = {
        "x": numbers(table["trials"]),
        "y": numbers(100 * table["hypervolume"]),
        "mode": "lines",
        "line": {"color": BLUE, "width": 2, "shape": "hv"},
        "hovertemplate": "after %{x} trials: %{y:.1f} %<extra></extra>",
    }
    x = {"title": {"text": "complete trials"}}
    y = {"title": {"text": "hypervolume (% of the last)"}, "rangemode": "tozero"}
    return [Panel("The front's hypervolume over trials", [trace], {"xaxis": x, "yaxis": y}, 260)]


def parameters(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The importance of each parameter, a panel an objective; bars within chance are grey."""
    info, panels = importance_info(finding.tables["parameters"]), []
    for name, table in info.by_objective.items():
        title = COLUMNS[name] + (f", the first {MAX_PARAMETERS}" if len(table) > MAX_PARAMETERS else "")
        rows = table.head(MAX_PARAMETERS)[::-1]
        places = list(range(len(rows)))
        bars = {
            "type": "bar",
            "orientation": "h",
            "x": numbers(rows["importance"]),
            "y": places,
            "showlegend": False,
            "marker": {"color": [BLUE if clear else WITHIN_CHANCE for clear in rows["clear"]]},
            "hovertemplate": "%{x:.2f}<extra></extra>",
        }
        chance = {
            "x": numbers(rows["chance"]),
            "y": places,
            "mode": "markers",
            "name": "what chance exceeds in 1 of 20 panels, over all parameters",
            "marker": {"symbol": "line-ns-open", "size": 14, "color": BLACK, "line": {"width": 2}},
            "hoverinfo": "skip",
        }
        x = {"title": {"text": "importance"}, "rangemode": "tozero"}
        layout = {"xaxis": x, "yaxis": named_rows(rows["parameter"])}
        panels.append(Panel(title, [bars, chance], layout, 150 + 22 * len(rows), False))
    return panels


def layers(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The effect of each precision of each layer group, a panel an objective."""
    panels = []
    for objective, rows in finding.tables["layers"].groupby("objective", sort=False):
        name, groups = str(objective), sorted(set(rows["group"]), key=natural_sort_key, reverse=True)
        unit = AXES[name].label.rpartition("(")[2].rstrip(")")
        x: Plain = {"title": {"text": f"effect ({'points' if unit == '%' else escaped(unit)})"}}
        x.update(zeroline=True, rangemode="tozero")
        layout = {"xaxis": x, "yaxis": named_rows(groups)}
        traces = _effects(rows, groups, 1 / AXES[name].unit)
        title = f"{COLUMNS[name]}; 95 % intervals, simultaneous over {len(rows)} effects"
        panels.append(Panel(title, traces, layout, 150 + 24 * len(groups), False))
    return panels


def _effects(rows: pd.DataFrame, groups: list[str], scale: float) -> list[Plain]:
    """A trace a precision; those of one layer group are drawn one above the other."""
    traces, colour_of = [], colours(rows["precision"])
    for i, (precision, part) in enumerate(rows.groupby("precision", sort=False)):
        shift = 0.25 * ((len(colour_of) - 1) / 2 - i)
        trace = {
            "x": numbers(scale * part["effect"]),
            "y": [groups.index(group) + shift for group in part["group"]],
            "mode": "markers",
            "name": precision,
            "marker": {"color": colour_of[str(precision)], "size": 7},
            "text": [escaped(group) for group in part["group"]],
            "error_x": interval(scale * part["effect"], scale * part["high"]),
            "hovertemplate": "%{text}: %{x:.3g}<extra>%{fullData.name}</extra>",
        }
        traces.append(trace)
    return traces


def confusion(finding: Finding, objectives: list[str]) -> list[Panel]:
    """A confusion matrix a model; none where there are too many classes to be read."""
    table = finding.tables["confusion"]
    classes = classes_of(table)
    if len(classes) > MAX_CLASSES:
        return []
    has_counts, height = len(classes) <= MAX_WITH_COUNTS, 420 if len(classes) <= MAX_WITH_COUNTS else 620
    names = [escaped(label) for label in classes]
    layout = _matrix_layout(classes, names, 12 if has_counts else 10)
    panels = []
    for model, rows in table.groupby("model", sort=False):
        trace = _matrix(confusion_info(rows, classes), names, "%{text}" if has_counts else "")
        panels.append(Panel(str(model), [trace], layout, height, not has_counts))
    return panels


def _matrix(info: ConfusionInfo, names: list[str], text: str) -> Plain:
    shares = (100 * info.shares.to_numpy()).round(1)  # (labels, predictions)
    return {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [numbers(row) for row in shares],
        "colorscale": [[0, "#ffffff"], [1, BLUE]],
        "zmin": 0,
        "zmax": 100,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "text": [numbers(row) for row in info.counts.to_numpy()],
        "texttemplate": text,
        "hovertemplate": "%{y} taken for %{x}: %{text} (%{z} %)<extra></extra>",
    }


def _matrix_layout(classes: list[str], names: list[str], font_size: int) -> Plain:
    step = -(-len(classes) // MAX_NAMED)
    axis = {
        "type": "category",
        "showgrid": False,
        "tickvals": names[::step],
        "tickfont": {"size": font_size},
        "ticktext": [escaped(name) for name in shortened_alike(classes[::step], MAX_CLASS_NAME)],
    }
    x = {**axis, "title": {"text": "predicted"}, "side": "top", "tickangle": -60}
    return {"xaxis": x, "yaxis": {**axis, "title": {"text": "label"}, "autorange": "reversed"}}
