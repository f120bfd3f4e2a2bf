"""The Pareto front as a plotly figure, with a mark for each trial that a click pins."""

import math
from typing import Any

import numpy as np
import pandas as pd

from ablate.config.objectives import COLUMNS, cell
from ablate.paper_figures.palette import BLACK, BLUE, GREY, VERMILLION
from ablate.paper_figures.pareto_info import TRIAL, ParetoInfo, pareto_info
from ablate.reporting.plotly_panel import (
    Panel,
    Plain,
    axis_layout,
    band,
    escaped,
    escaped_lines,
    half_widths,
    numbers,
)
from ablate.reporting.run_results import Finding

MAX_TRIALS = 5000  # a browser draws no more without a pause
LABEL = {
    "showarrow": True,
    "arrowwidth": 1,
    "arrowhead": 0,
    "arrowcolor": BLACK,
    "bgcolor": "rgba(255, 255, 255, 0.85)",
}
RING = {"symbol": "circle-open", "size": 18, "color": VERMILLION, "line": {"width": 2.5}}
PINNED = {"x": [], "y": [], "mode": "markers", "name": "pinned", "marker": RING, "hoverinfo": "skip"}


def shown_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that the figure shows: all, or the front, the labelled ones and evenly chosen others.

    Args:
        trials: The table "trials" of the finding "front".
    """
    if len(trials) <= MAX_TRIALS:
        return trials
    kept = trials["front"] | trials["stairs"] | (trials["label"] != "")
    others = trials.index[~kept]
    kept[others[np.linspace(0, len(others) - 1, MAX_TRIALS).astype(int)]] = True
    return trials[kept]


def front(finding: Finding, objectives: list[str]) -> list[Panel]:
    """The figure of the finding "front".

    report.js relies on two things: `customdata` of a mark is the place of its trial among `shown_trials`, and
    the last trace is the ring about the pinned trial.
    """
    trials = shown_trials(finding.tables["trials"])
    info = pareto_info(trials, objectives, finding.tables)
    axes = {"xaxis": axis_layout(info.x, info.trials["x"]), "yaxis": axis_layout(info.y, info.trials["y"])}
    traces = [
        *_stairs(info),
        *_curve(info),
        *_marks(info, _hover_texts(trials, objectives)),
        *_spread(info),
        PINNED,
    ]
    layout = {
        **axes,
        "annotations": _labels(info, axes),
        "hovermode": "closest",
        "legend": {"itemsizing": "constant"},
    }
    return [Panel(_title(info), traces, layout, 480)]


def _title(info: ParetoInfo) -> str:
    if info.x is TRIAL:
        title = f"{info.y.label}, trial by trial"
    else:
        title = f"{info.y.label} against {info.x.label}, a mark a trial"
    return f"{title}; colour: {info.colour.label}" if info.colour else title


def _stairs(info: ParetoInfo) -> list[Plain]:
    if info.x is TRIAL:
        return []
    line = {"color": GREY, "width": 1, "shape": "vh" if info.drops_before_points else "hv"}
    places = {"x": numbers(info.stairs["x"]), "y": numbers(info.stairs["y"])}
    legend = {"name": "steps of the front", "showlegend": True}
    return [{**places, **legend, "mode": "lines", "hoverinfo": "skip", "line": line}]


def _curve(info: ParetoInfo) -> list[Plain]:
    """The curve in its band, or means with their intervals."""
    if (curve := info.curve) is None:
        return []
    rows = curve.rows
    trace = {"x": numbers(rows["x"]), "y": numbers(rows["y"]), "name": curve.name, "showlegend": True}
    trace |= {"hoverinfo": "skip"}
    if curve.is_joined:
        edges = band(rows["x"], rows["low"], rows["high"], BLUE) if curve.has_band else []
        return [*edges, {**trace, "mode": "lines", "line": {"color": BLUE, "width": 2}}]
    ends = half_widths(rows["high"] - rows["y"]) | {"arrayminus": numbers(rows["y"] - rows["low"])}
    marker = {"symbol": "line-ew-open", "size": 10, "color": BLUE}
    return [{**trace, "mode": "markers", "marker": marker, "error_y": {**ends, "symmetric": False}}]


def _spread(info: ParetoInfo) -> list[Plain]:
    """A bar through each trial with further seeds, from the lowest of their values to the highest."""
    if not len(info.spread):
        return []
    ends = info.spread.assign(middle=info.spread[["low", "high"]].mean(axis=1))
    bars = half_widths((ends["high"] - ends["low"]) / 2) | {"color": VERMILLION, "width": 6}
    trace = {"x": numbers(ends["x"]), "y": numbers(ends["middle"]), "name": "range over seeds"}
    marker = {"symbol": "line-ns-open", "size": 10, "color": VERMILLION}
    return [{**trace, "mode": "markers", "marker": marker, "error_y": bars, "hoverinfo": "skip"}]


def _marks(info: ParetoInfo, texts: "pd.Series[str]") -> list[Plain]:
    """A trace of the beaten trials and one of the front."""
    index = pd.Series(np.arange(len(info.trials)), index=info.trials.index)

    def trace(rows: "pd.Series[bool]", name: str, marker: Plain) -> Plain:
        return {
            "x": numbers(info.trials.loc[rows, "x"]),
            "y": numbers(info.trials.loc[rows, "y"]),
            "showlegend": True,
            "mode": "markers",
            "name": name,
            "marker": marker,
            "text": list(texts[rows]),
            "customdata": numbers(index[rows]),
            "hovertemplate": "%{text}<extra></extra>",
        }

    on_front = info.trials["front"]
    cross = {"symbol": "x-thin", "size": 6, "line": {"color": GREY, "width": 1.2}}
    circle = {"size": 11, "line": {"color": BLACK, "width": 1}, **_colours(info)}
    return [trace(~on_front, "beaten", cross), trace(on_front, "on the front", circle)]


def _colours(info: ParetoInfo) -> Plain:
    """The third objective as colour; by its logarithm where that is due, with plain numbers at the ticks."""
    if info.colour is None:
        return {"color": BLUE}
    values = info.trials.loc[info.trials["front"], "colour"].astype(float)
    title = {"text": escaped(info.colour.label), "side": "top"}
    bar: Plain = {"title": title, "orientation": "h", "thickness": 10}
    bar.update(y=-0.22, yanchor="top", outlinewidth=0, len=0.6)
    if info.log_colour:
        ticks = np.unique([float(f"{tick:.2g}") for tick in np.geomspace(values.min(), values.max(), 4)])
        bar.update(tickvals=numbers(np.log10(ticks)), ticktext=[f"{tick:g}" for tick in ticks])
        values = np.log10(values)
    return {"color": numbers(values), "colorscale": "Cividis", "colorbar": bar}


def _labels(info: ParetoInfo, axes: dict[str, Plain]) -> list[Plain]:
    """An annotation beside each trial that has a label; from the top, so that lines do not cross."""
    labelled = info.trials[info.trials["label"] != ""].sort_values("y", ascending=False, kind="stable")
    middle = (info.trials["x"].max() * info.trials["x"].min()) ** 0.5
    annotations = []
    for i, (_, trial) in enumerate(labelled.iterrows()):
        place: dict[str, Any] = {
            letter: math.log10(trial[letter]) if "type" in axes[f"{letter}axis"] else float(trial[letter])
            for letter in "xy"
        }
        offset = {"ax": -46 if trial["x"] > middle else 46, "ay": 16 + 16 * i}
        annotations.append({**LABEL, **place, "text": f"<b>{escaped(trial['label'])}</b>", **offset})
    return annotations


def _hover_texts(trials: pd.DataFrame, objectives: list[str]) -> "pd.Series[str]":
    texts = []
    for _, trial in trials.iterrows():
        values = [f"{COLUMNS[name]}: {cell(name, trial[name])}" for name in objectives]
        lines = [f"<b>{escaped(trial['trial_id'])}</b>", *map(escaped, values)]
        texts.append("<br>".join([*lines, escaped_lines(trial["layers"], 36)]))
    return pd.Series(texts, index=trials.index)
