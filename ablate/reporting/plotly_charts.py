"""Findings as plotly figures, in plain data: what to draw, and nothing else; report.js gives them their common look."""

import html
import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.config.objectives import AXES, COLUMNS, OBJECTIVES, Axis, cell
from ablate.config.study_spec import StudySpec
from ablate.formatting import natural_sort_key
from ablate.labels import one_line, shortened_alike
from ablate.paper_figures.palette import BLACK, BLUE, GREY, VERMILLION, colours
from ablate.reporting.run_results import Finding

DRAWN = 5000  # trials: a browser draws no more without a pause
BARS = 15  # parameters of a panel
LABEL = {
    "showarrow": True,
    "arrowwidth": 1,
    "arrowhead": 0,
    "arrowcolor": BLACK,
    "bgcolor": "rgba(255, 255, 255, 0.85)",
}
SIZES = 6  # of training sets that stand at an axis themselves
LONGEST = 28  # name beside a row
CLASSES = 100  # of a confusion matrix that can still be read
COUNTED = 12  # of one whose counts stand in the cells
NAMED = 20  # classes with a name beside their row
CLASS = 16  # letters of it


Plain = dict[str, Any]


class Panel(NamedTuple):
    """One figure: what it shows in words, plotly's traces and layout, its height in pixels, and whether it needs the width."""

    title: str
    data: list[Plain]
    layout: Plain
    height: int = 360
    wide: bool = True


def charts(name: str, finding: Finding, study: StudySpec) -> list[Panel]:
    """The figures of a finding, by its name; none where there is nothing to draw."""
    draw = DRAWINGS.get(name)
    return draw(finding, list(study.objectives)) if draw and finding else []


def drawn(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that the front's figure shows: all, or the front, the anchors and evenly chosen others."""
    if len(trials) <= DRAWN:
        return trials
    kept = trials["front"] | trials["stairs"] | (trials["label"] != "")
    others = trials.index[~kept]
    kept[others[np.linspace(0, len(others) - 1, DRAWN).astype(int)]] = True
    return trials[kept]


def _front(finding: Finding, objectives: list[str]) -> list[Panel]:
    trials = drawn(finding.tables["trials"]).assign(trial=lambda rows: rows.index + 1)
    y, x = objectives[0], objectives[1] if len(objectives) > 1 else "trial"
    places = {name: _values(trials, name) for name in {x, y}}

    def trace(rows: pd.Series, **look: Any) -> Plain:
        return {"x": _list(places[x][rows]), "y": _list(places[y][rows]), "showlegend": False} | look

    told = pd.Series([_hover(row, objectives) for _, row in trials.iterrows()], index=trials.index)
    index = pd.Series(np.arange(len(trials)), index=trials.index)

    def dots(rows: pd.Series, name: str, **marker: Any) -> Plain:
        texts: Plain = {
            "text": list(told[rows]),
            "customdata": _list(index[rows]),
            "hovertemplate": "%{text}<extra></extra>",
        }
        return trace(rows, mode="markers", name=name, marker=marker, **texts) | {"showlegend": True}

    traces = []
    if x != "trial":
        stairs = trials["stairs"] & ~trials.duplicated([x, y])
        shape = "vh" if OBJECTIVES[x] == "max" else "hv"  # what a point attains lies on its worse side
        line = trace(stairs, mode="lines", hoverinfo="skip", line={"color": GREY, "width": 1, "shape": shape})
        order = np.argsort(line["x"])
        traces.append(line | {key: [line[key][i] for i in order] for key in "xy"})
    on = trials["front"]
    traces.append(dots(~on, "beaten", symbol="x-thin", size=6, line={"color": GREY, "width": 1.2}))
    colour = _colours(trials[on], objectives[2]) if len(objectives) > 2 else {"color": BLUE}
    traces.append(dots(on, "on the front", size=11, line={"color": BLACK, "width": 1}, **colour))
    scales = {f"{letter}axis": _scale(name, places[name]) for letter, name in (("x", x), ("y", y))}
    named = (
        places[y][trials["label"] != ""].sort_values(ascending=False, kind="stable").index
    )  # so that leaders do not cross
    notes = []
    for i, row in enumerate(named):
        at = {
            f: math.log10(places[n][row]) if "type" in scales[f"{f}axis"] else places[n][row]
            for f, n in (("x", x), ("y", y))
        }
        side = -1 if places[x][row] > (places[x].max() * places[x].min()) ** 0.5 else 1
        notes.append(
            LABEL
            | at
            | {"text": f"<b>{_text(trials.loc[row, 'label'])}</b>", "ax": 46 * side, "ay": 16 + 16 * i}
        )
    ring: Plain = {"symbol": "circle-open", "size": 18, "color": VERMILLION, "line": {"width": 2.5}}
    traces.append(
        {"x": [], "y": [], "mode": "markers", "name": "pinned", "marker": ring, "hoverinfo": "skip"}
    )
    title = (
        f"{_axis(y).label} against {_axis(x).label}, a mark a trial"
        if x != "trial"
        else f"{_axis(y).label}, trial by trial"
    )
    if len(objectives) > 2:
        title += f"; colour: {_axis(objectives[2]).label}"
    return [
        Panel(
            title,
            traces,
            scales | {"annotations": notes, "hovermode": "closest", "legend": {"itemsizing": "constant"}},
            480,
        )
    ]


def _hover(trial: pd.Series, objectives: list[str]) -> str:
    numbers = [f"{COLUMNS[name]}: {cell(name, trial[name])}" for name in objectives]
    return "<br>".join([f"<b>{trial['trial_id']}</b>", *numbers, *textwrap.wrap(_text(trial["layers"]), 36)])


def _colours(front: pd.DataFrame, name: str) -> Plain:
    """The third objective as colour; on a logarithmic axis by its logarithm, with plain numbers at the ticks."""
    values, axis = _values(front, name), _axis(name)
    bar: Plain = {"title": {"text": axis.label, "side": "top"}, "orientation": "h", "thickness": 10}
    bar |= {"y": -0.22, "yanchor": "top", "outlinewidth": 0, "len": 0.6}
    if log := axis.scale == "log" and bool((values > 0).all()):
        ticks = np.unique([float(f"{tick:.2g}") for tick in np.geomspace(values.min(), values.max(), 4)])
        bar |= {"tickvals": _list(np.log10(ticks)), "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"color": _list(np.log10(values) if log else values), "colorscale": "Cividis", "colorbar": bar}


def _progress(finding: Finding, objectives: list[str]) -> list[Panel]:
    table = finding.tables["hypervolume"]
    line: Plain = {"color": BLUE, "width": 2, "shape": "hv"}
    trace: Plain = {
        "x": _list(table["trials"]),
        "y": _list(100 * table["hypervolume"]),
        "mode": "lines",
        "line": line,
    }
    trace |= {"hovertemplate": "after %{x} trials: %{y:.1f} %<extra></extra>"}
    layout: Plain = {
        "xaxis": {"title": {"text": "complete trials"}},
        "yaxis": {"title": {"text": "hypervolume (% of the last)"}},
    }
    layout["yaxis"] |= {"rangemode": "tozero"}
    return [Panel("The front's hypervolume over trials", [trace], layout, 260)]


def _parameters(finding: Finding, objectives: list[str]) -> list[Panel]:
    panels = []
    for name, rows in finding.tables["parameters"].groupby("objective", sort=False):
        title = COLUMNS[str(name)] + (f", the first {BARS}" if len(rows) > BARS else "")
        rows = rows.head(BARS)[::-1]
        places = list(range(len(rows)))
        clear = rows["importance"] > rows["chance"]
        bars: Plain = {
            "type": "bar",
            "orientation": "h",
            "x": _list(rows["importance"]),
            "y": places,
            "showlegend": False,
        }
        bars |= {
            "marker": {"color": [BLUE if row else "#c4c4c4" for row in clear]},
            "hovertemplate": "%{x:.2f}<extra></extra>",
        }
        mark: Plain = {"symbol": "line-ns-open", "size": 14, "color": BLACK, "line": {"width": 2}}
        chance: Plain = {
            "x": _list(rows["chance"]),
            "y": places,
            "mode": "markers",
            "name": "what chance alone would show",
            "marker": mark,
        }
        layout: Plain = {
            "xaxis": {"title": {"text": "importance"}, "rangemode": "tozero"},
            "yaxis": _rows(rows["parameter"]),
        }
        panels.append(
            Panel(title, [bars, chance | {"hoverinfo": "skip"}], layout, 150 + 22 * len(rows), False)
        )
    return panels


def _layers(finding: Finding, objectives: list[str]) -> list[Panel]:
    panels = []
    for name, rows in finding.tables["layers"].groupby("objective", sort=False):
        groups = sorted(set(rows["group"]), key=natural_sort_key, reverse=True)
        kinds, times = list(dict.fromkeys(rows["precision"])), 1 / AXES[str(name)].unit
        traces = []
        for i, (kind, part) in enumerate(rows.groupby("precision", sort=False)):
            y = [groups.index(group) + 0.25 * ((len(kinds) - 1) / 2 - i) for group in part["group"]]
            trace: Plain = {"x": _list(times * part["effect"]), "y": y, "mode": "markers", "name": kind}
            trace |= {
                "marker": {"color": colours(kinds)[str(kind)], "size": 7},
                "text": [_text(group) for group in part["group"]],
            }
            arms: Plain = {
                "array": _list(times * (part["high"] - part["effect"])),
                "thickness": 1.5,
                "width": 0,
            }
            traces.append(
                trace | {"error_x": arms, "hovertemplate": "%{text}: %{x:.3g}<extra>%{fullData.name}</extra>"}
            )
        unit = AXES[str(name)].label.rpartition("(")[2].rstrip(")")
        x: Plain = {
            "title": {"text": f"effect ({'points' if unit == '%' else unit})"},
            "zeroline": True,
            "rangemode": "tozero",
        }
        panels.append(
            Panel(
                COLUMNS[str(name)],
                traces,
                {"xaxis": x, "yaxis": _rows(groups)},
                150 + 24 * len(groups),
                False,
            )
        )
    return panels


def _sensitivity(finding: Finding, objectives: list[str]) -> list[Panel]:
    costs, panels = finding.tables["sensitivity"], []
    for how, told in (("alone", "all else full"), ("last", "all else low")):
        rows, traces = costs[costs["how"] == how].dropna(subset="accuracy_cost"), []
        for kind, part in rows.groupby("precision", sort=False):
            part = part.set_index("group", drop=False).loc[sorted(part["group"], key=natural_sort_key)]
            trace: Plain = {
                "x": [_text(group) for group in part["group"]],
                "y": _list(100 * part["accuracy_cost"]),
                "mode": "lines+markers",
                "name": kind,
            }
            trace |= {"marker": {"color": colours(rows["precision"])[str(kind)]}}
            trace |= {
                "error_y": {
                    "array": _list(100 * (part["accuracy_high"] - part["accuracy_cost"])),
                    "thickness": 1.5,
                    "width": 0,
                }
            }
            traces.append(trace | {"hovertemplate": "%{x}: %{y:.2f} points<extra>%{fullData.name}</extra>"})
        y: Plain = {"title": {"text": "cost (points)"}, "zeroline": True}
        groups = [_text(group) for group in sorted(set(rows["group"]), key=natural_sort_key)]
        order: Plain = {"categoryorder": "array", "categoryarray": groups, "tickangle": -60}
        panels += (
            [Panel(f"Cost in accuracy, {told}", traces, {"xaxis": order, "yaxis": y}, 380)] if traces else []
        )
    return panels


def _scaling(finding: Finding, objectives: list[str]) -> list[Panel]:
    points, bands, traces = finding.tables["points"], finding.tables["bands"], []
    arms = list(dict.fromkeys(points["arm"]))
    for arm in arms:
        colour, rows, band = colours(arms)[arm], points[points["arm"] == arm], bands[bands["arm"] == arm]
        dots: Plain = {
            "x": _list(rows["images"]),
            "y": _list(100 * rows["error"]),
            "mode": "markers",
            "name": _text(arm),
        }
        dots |= {"marker": {"color": colour, "size": 6, "opacity": 0.55}, "legendgroup": arm}
        traces += _band(band["images"], 100 * band["low"], 100 * band["high"], colour) if len(band) else []
        if len(band):
            line: Plain = {
                "x": _list(band["images"]),
                "y": _list(100 * band["error"]),
                "mode": "lines",
                "hoverinfo": "skip",
            }
            traces.append(line | {"line": {"color": colour, "width": 2}, "showlegend": False})
        traces.append(dots | {"hovertemplate": "%{x:,} images: %{y:.1f} %<extra>%{fullData.name}</extra>"})
    layout: Plain = {
        "xaxis": _scale("images", points["images"]),
        "yaxis": _log({"title": {"text": "error (%)"}}, points["error"]),
    }
    return [
        Panel("Error against training images: trials, the fitted law, and its 95 % band", traces, layout, 420)
    ]


def _volume(finding: Finding, objectives: list[str]) -> list[Panel]:
    gaps, traces = finding.tables["gaps"].dropna(subset="gap"), []
    verdicts = finding.tables["verdicts"].set_index("arm")
    told = verdicts["verdict"] + np.where(verdicts["same_recipe"], "", " *")
    arms = list(dict.fromkeys(gaps["arm"]))
    for i, arm in enumerate(arms):
        rows, colour = gaps[gaps["arm"] == arm], colours(arms)[arm]
        if "band_low" in rows and rows["band_low"].notna().any():
            known = rows.dropna(subset="band_low")
            traces += _band(known["images"], 100 * known["band_low"], 100 * known["band_high"], colour)
        x = rows["images"] * 1.02 ** (i - (len(arms) - 1) / 2)  # side by side
        trace: Plain = {"x": _list(x), "y": _list(100 * rows["gap"]), "name": f"{_text(arm)}: {told[arm]}"}
        trace |= {
            "mode": "lines+markers",
            "marker": {"color": colour, "size": 8},
            "line": {"color": colour, "width": 1.5},
        }
        bars: Plain = {"array": _list(100 * (rows["high"] - rows["gap"])), "thickness": 1.5, "width": 4}
        trace |= {"error_y": bars, "customdata": _list(rows["images"])}
        traces.append(
            trace
            | {"hovertemplate": "%{customdata:,} images: %{y:.1f} points<extra>%{fullData.name}</extra>"}
        )
    y: Plain = {"title": {"text": "gap (points)"}, "zeroline": True, "rangemode": "tozero"}
    title = "Gap to full precision against training images: mean, 95 % interval over seeds, bootstrap band"
    title += (
        "" if verdicts["same_recipe"].all() else " (* to another recipe: recipe and quantization together)"
    )
    return (
        [Panel(title, traces, {"xaxis": _scale("images", gaps["images"]), "yaxis": y}, 420)]
        if len(gaps)
        else []
    )


def _ladder(finding: Finding, objectives: list[str]) -> list[Panel]:
    if "ladder" not in finding.tables:
        return []
    rungs = finding.tables["ladder"].dropna(subset="mean")
    place = {rung: len(rungs) - 1 - i for i, rung in enumerate(rungs["rung"])}
    seeds = finding.tables["ladder_seeds"][list(place)].melt(var_name="rung").dropna()
    dots: Plain = {
        "x": _list(100 * seeds["value"]),
        "y": [place[rung] for rung in seeds["rung"]],
        "mode": "markers",
    }
    dots |= {
        "name": "a seed",
        "marker": {"color": BLUE, "size": 6, "opacity": 0.4},
        "hovertemplate": "%{x:.1f} %<extra></extra>",
    }
    gains = ["" if np.isnan(gain) else f"  {100 * gain:+.1f}" for gain in rungs["gain"]]
    means: Plain = {
        "x": _list(100 * rungs["mean"]),
        "y": list(place.values()),
        "mode": "markers+text",
        "name": "mean, 95 % interval",
    }
    means |= {
        "text": gains,
        "textposition": "top center",
        "hovertemplate": "%{x:.1f} %<extra></extra>",
        "cliponaxis": False,
    }
    means |= {
        "error_x": {"array": _list(100 * (rungs["high"] - rungs["mean"])), "thickness": 1.5, "width": 0}
    }
    means |= {"marker": {"color": BLUE, "size": 10, "symbol": "diamond"}}
    names = ["<br>".join(textwrap.wrap(_text(rung), 22)) for rung in rungs["rung"]]
    y: Plain = _rows(list(place)) | {"tickvals": list(place.values()), "ticktext": names}
    title = "Test accuracy rung by rung; above each its gain over the rung before, in points"
    return [
        Panel(
            title,
            [dots, means],
            {"xaxis": {"title": {"text": "test accuracy (%)"}}, "yaxis": y},
            130 + 44 * len(rungs),
        )
    ]


def _confusion(finding: Finding, objectives: list[str]) -> list[Panel]:
    table, panels = finding.tables["confusion"], []
    classes = list(dict.fromkeys([*table["label"], *table["predicted"]]))
    if len(classes) > CLASSES:
        return []
    names, step, many = (
        [_text(one_line(label)) for label in classes],
        -(-len(classes) // NAMED),
        len(classes) > COUNTED,
    )
    for name, rows in table.groupby("model", sort=False):
        square = rows.assign(share=100 * rows["share"]).pivot(index="label", columns="predicted")
        square = square.reindex(
            index=classes, columns=pd.MultiIndex.from_product([["share", "count"], classes])
        ).fillna(0)
        shares, counts = square["share"].to_numpy(), square["count"].to_numpy()  # (labels, predictions)
        trace: Plain = {
            "type": "heatmap",
            "x": names,
            "y": names,
            "z": [_list(row) for row in shares.round(1)],
        }
        trace |= {
            "colorscale": [[0, "#ffffff"], [1, BLUE]],
            "zmin": 0,
            "zmax": 100,
            "showscale": False,
            "xgap": 1,
            "ygap": 1,
        }
        trace |= {"text": [_list(row) for row in counts], "texttemplate": "" if many else "%{text}"}
        trace |= {"hovertemplate": "%{y} taken for %{x}: %{text} (%{z} %)<extra></extra>"}
        axes: Plain = {
            "type": "category",
            "showgrid": False,
            "tickvals": names[::step],
            "tickfont": {"size": 10 if many else 12},
        }
        axes |= {"ticktext": [_text(name) for name in shortened_alike(classes[::step], CLASS)]}
        layout: Plain = {"xaxis": axes | {"title": {"text": "predicted"}, "side": "top", "tickangle": -60}}
        layout["yaxis"] = axes | {"title": {"text": "label"}, "autorange": "reversed"}
        panels.append(Panel(str(name), [trace], layout, 620 if many else 420, many))
    return panels


DRAWINGS: dict[str, Callable[[Finding, list[str]], list[Panel]]] = {
    "front": _front,
    "progress": _progress,
    "parameters": _parameters,
    "layers": _layers,
    "sensitivity": _sensitivity,
    "scaling": _scaling,
    "volume": _volume,
    "ladder": _ladder,
    "confusion": _confusion,
}


def _band(x: pd.Series, low: pd.Series, high: pd.Series, colour: str) -> list[Plain]:
    """A filled band: its upper edge, then its lower edge filled up to it."""
    edge: Plain = {
        "x": _list(x),
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    fill: Plain = {
        "fill": "tonexty",
        "fillcolor": f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.15)",
    }
    return [edge | {"y": _list(high)}, edge | {"y": _list(low)} | fill]


def _rows(names: Any) -> Plain:
    """A vertical axis of names at 0, 1, ...; of a long name its end."""
    texts = [_text(name) for name in shortened_alike(list(names), LONGEST)]
    return {
        "tickvals": list(range(len(texts))),
        "ticktext": texts,
        "range": [-0.7, len(texts) - 0.3],
        "zeroline": False,
    }


def _text(value: Any) -> str:
    """Text as plotly takes it, which knows tags and &amp; but not &quot;."""
    return html.escape(str(value), quote=False)


def _axis(name: str) -> Axis:
    return AXES.get(name, Axis(name, name))


def _values(rows: pd.DataFrame, name: str) -> pd.Series:
    return _axis(name)(rows).astype(float)


def _scale(name: str, values: pd.Series) -> Plain:
    """An axis with its label; logarithmic, with plain numbers at 1, 2 and 5, where its values are above 0."""
    look: Plain = {"title": {"text": _axis(name).label}}
    if _axis(name).scale == "log" and len(values) and (values > 0).all():
        look = _log(look, values)
    if name == "images" and values.nunique() <= SIZES:  # the sizes themselves
        sizes = sorted(set(values.astype(int)))
        look |= {"tickvals": sizes, "ticktext": [f"{size:,}" for size in sizes]}
    return look


def _log(look: Plain, values: pd.Series) -> Plain:
    """A logarithmic axis with plain numbers at its ticks; what differs little stays linear."""
    decades = math.log10(values.max() / values.min())
    if decades < 0.2:
        return look
    return look | {
        "type": "log",
        "tickformat": "~g",
        "dtick": "D1" if decades < 0.8 else "D2" if decades < 2.5 else 1,
    }


def _list(values: Any) -> list[Any]:
    """Plain numbers, to 6 digits; None for what is not finite."""
    return [
        None if not np.isfinite(value) else float(f"{value:.6g}") for value in np.asarray(values, dtype=float)
    ]
