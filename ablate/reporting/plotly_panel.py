"""What plotly's figures of the report page share: a panel, its axes, and numbers and names for plotly.

Figures are plain data, as plotly's JSON has them; report.js adds their common style.
"""

import html
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.config.objectives import Axis
from ablate.labels import one_line, shortened_alike, wrapped
from ablate.paper_figures.palette import is_logarithmic

MAX_SIZE_TICKS = 6  # sizes of training sets that an axis shows themselves
MAX_NAME = 28  # letters of a name beside a row

Plain = dict[str, Any]


class Panel(NamedTuple):
    """One figure of the report page.

    Args:
        title: What it shows.
        data: Plotly's traces.
        layout: Plotly's layout.
        height: In pixels.
        wide: Whether it needs the width of the page.
    """

    title: str
    data: list[Plain]
    layout: Plain
    height: int = 360
    wide: bool = True


def escaped(value: Any) -> str:
    """Text on one line for plotly, which reads tags and &amp; but not &quot;."""
    return html.escape(one_line(str(value)), quote=False)


def escaped_lines(text: str, width: int) -> str:
    """Text for plotly, broken into lines of a maximum width in characters."""
    return "<br>".join(map(escaped, wrapped(one_line(text), width).split("\n")))


def numbers(values: Any) -> list[float | None]:
    """Plain numbers (n,) to 6 digits; None for what is not finite."""
    array = np.asarray(values, dtype=float)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in array]


def interval(centre: pd.Series, high: pd.Series) -> Plain:
    """Error bars (n,), symmetric about the centre."""
    return half_widths(high - centre)


def half_widths(values: pd.Series) -> Plain:
    """Error bars of half widths (n,)."""
    return {"array": numbers(values), "thickness": 1.5, "width": 0}


def axis_layout(axis: Axis, values: pd.Series) -> Plain:
    """An axis with its label; logarithmic if its values are positive and the quantity is drawn so."""
    layout: Plain = {"title": {"text": escaped(axis.label)}}
    if is_logarithmic(axis, values):
        layout = logarithmic(layout, values)
    if axis.name == "images" and values.nunique() <= MAX_SIZE_TICKS:
        sizes = sorted(set(values.astype(int)))
        layout.update(tickvals=sizes, ticktext=[f"{size:,}" for size in sizes])
    return layout


def logarithmic(layout: Plain, values: pd.Series) -> Plain:
    """A logarithmic axis with plain numbers at its ticks; linear where the positive values differ little."""
    positive = values[values > 0]
    decades = math.log10(positive.max() / positive.min()) if len(positive) else 0
    if decades < 0.2:
        return layout
    # D1 puts a tick at every digit, D2 at 1, 2 and 5, 1 at each power of ten.
    step = "D1" if decades < 0.8 else "D2" if decades < 2.5 else 1
    return layout | {"type": "log", "tickformat": "~g", "dtick": step}


def named_rows(names: Any) -> Plain:
    """A vertical axis of names at 0, 1, ..., shortened."""
    texts = [escaped(name) for name in shortened_alike(list(names), MAX_NAME)]
    ticks = {"tickvals": list(range(len(texts))), "ticktext": texts}
    return {**ticks, "range": [-0.7, len(texts) - 0.3], "zeroline": False}


def band(x: pd.Series, low: pd.Series, high: pd.Series, colour: str) -> list[Plain]:
    """A filled band in a colour `#rrggbb`: its upper edge, then its lower edge filled up to it."""
    edge: Plain = {
        "x": numbers(x),
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red}, {green}, {blue}, 0.15)"}
    return [{**edge, "y": numbers(high)}, {**edge, "y": numbers(low), **fill}]
