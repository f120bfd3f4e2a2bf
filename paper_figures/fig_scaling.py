"""Error against the volume of training data: each arm's seeds, the law that fits them, and its band."""

from pathlib import Path

import pandas as pd

from ablate.labels import shortened
from ablate.paper_figures.style import LONGEST, arms, figure, legend, plain, set_title, sizes


def draw(points: pd.DataFrame, bands: pd.DataFrame, laws: pd.DataFrame, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    points: a row a trial (arm, images, error). bands: a row an arm and size (arm, images, error, low, high), none for an arm
    that no law fits. laws: a row an arm, law and parameter, with the equation.
    """
    equations = laws.drop_duplicates("arm").set_index("arm")["equation"] if len(laws) else {}
    lines = {}
    with figure(path) as axes:
        for arm, (colour, marker) in arms(points["arm"]).items():
            rows, curve = points[points["arm"] == arm], bands[bands["arm"] == arm]
            axes.plot(
                rows["images"],
                100 * rows["error"],
                marker,
                color=colour,
                markersize=2.5,
                alpha=0.5,
                markeredgewidth=0,
            )
            mean = rows.groupby("images")["error"].mean()
            lines[arm] = axes.plot(mean.index, 100 * mean, marker, color=colour, markersize=4.5)[0]
            axes.plot(curve["images"], 100 * curve["error"], color=colour, linewidth=1)
            axes.fill_between(
                curve["images"],
                100 * curve["low"],
                100 * curve["high"],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        axes.set(xscale="log", yscale="log", xlabel="training images", ylabel="error (%)")
        set_title(axes, title)
        for text in legend(axes, lines, fontsize=6).get_texts():
            name = text.get_text()
            text.set_text(shortened(name, LONGEST))
            if name in equations:
                text.set_parse_math(True)
                text.set_text(text.get_text().replace("$", r"\$") + f": ${_math(equations[name])}$")
        sizes(axes.xaxis, points["images"])
        plain(axes.yaxis)


def _math(equation: str) -> str:
    return equation.replace("beta", "\\beta")
