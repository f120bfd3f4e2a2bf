"""Error against the volume of training data: each arm's seeds, the law that fits them, and its band."""

from pathlib import Path

import pandas as pd

from ablate.labels import shortened
from ablate.paper_figures.scaling_info import X_LABEL, Y_LABEL, ErrorCurve
from ablate.paper_figures.style import LONGEST, figure, legend, markers, plain, set_title, sizes


def draw(curves: dict[str, ErrorCurve], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        curves: By arm, as `scaling_info` returns them.
        title: Above the axes.
        path: Of the files, without their endings.
    """
    lines = {}
    with figure(path) as axes:
        for arm, marker in markers(curves).items():
            colour, trials, band = curves[arm].colour, curves[arm].trials, curves[arm].band
            dots = {"color": colour, "markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}
            axes.plot(trials["images"], trials["error"], marker, **dots)
            mean = trials.groupby("images")["error"].mean()
            lines[arm] = axes.plot(mean.index, mean, marker, color=colour, markersize=4.5)[0]
            axes.plot(band["images"], band["error"], color=colour, linewidth=1)
            fill = {"color": colour, "alpha": 0.15, "linewidth": 0}
            axes.fill_between(band["images"], band["low"], band["high"], **fill)
        axes.set(xscale="log", yscale="log", xlabel=X_LABEL, ylabel=Y_LABEL)
        set_title(axes, title)
        texts = legend(axes, lines, fontsize=6).get_texts()
        for text, (arm, curve) in zip(texts, curves.items(), strict=True):
            text.set_text(shortened(arm, LONGEST))
            if curve.equation:
                text.set_parse_math(True)
                text.set_text(text.get_text().replace("$", r"\$") + f": ${_math(curve.equation)}$")
        sizes(axes.xaxis, pd.concat([curve.trials["images"] for curve in curves.values()]))
        plain(axes.yaxis)


def _math(equation: str) -> str:
    return equation.replace("beta", "\\beta")
