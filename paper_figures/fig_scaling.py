"""Error against the volume of training data: each arm's seeds, and the law that fits them with its band.

Where lack of fit rejects the law, the means and their intervals are drawn instead.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from ablate.labels import left_to_right, shortened
from ablate.paper_figures.scaling_info import X_LABEL, Y_LABEL, ErrorCurve
from ablate.paper_figures.style import LONGEST, figure, legend, markers, plain, set_title, sizes

MOST_INSIDE = 4  # names that the axes have room for


def draw(curves: dict[str, ErrorCurve], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        curves: By arm, as `scaling_info` returns them.
        title: Above the axes.
        path: Of the files, without their endings.
    """
    lines, is_below = {}, len(curves) > MOST_INSIDE
    with figure(path, 2.6 + 0.14 * len(curves) * is_below) as axes:
        for arm, marker in markers(curves).items():
            colour, trials = curves[arm].colour, curves[arm].trials
            dots = {"color": colour, "markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}
            axes.plot(trials["images"], trials["error"], marker, **dots)
            mean = trials.groupby("images")["error"].mean()
            lines[arm] = axes.plot(mean.index, mean, marker, color=colour, markersize=4.5)[0]
            _draw_curve(axes, curves[arm])
        axes.set(xscale="log", yscale="log", xlabel=X_LABEL, ylabel=Y_LABEL)
        set_title(axes, title)
        owner, place = (axes.figure, "outside lower center") if is_below else (axes, "best")
        texts = legend(owner, lines, fontsize=6, loc=place).get_texts()
        for text, (arm, curve) in zip(texts, curves.items(), strict=True):
            text.set_text(left_to_right(shortened(arm, LONGEST)))
            if curve.equation:
                verdict = " rejected" if curve.rejected else ""
                text.set_text(f"{text.get_text()}: {_with_superscripts(curve.equation)}{verdict}")
        sizes(axes.xaxis, pd.concat([curve.trials["images"] for curve in curves.values()]))
        plain(axes.yaxis)


def _draw_curve(axes: Any, curve: ErrorCurve) -> None:
    """The law with its band; where it is rejected, the means, joined by segments, with their intervals."""
    band, colour = curve.band, curve.colour
    if curve.rejected:
        ends = [band["error"] - band["low"], band["high"] - band["error"]]
        axes.errorbar(
            band["images"], band["error"], ends, color=colour, linewidth=0.8, linestyle=":", capsize=2
        )
        return
    axes.plot(band["images"], band["error"], color=colour, linewidth=1)
    axes.fill_between(band["images"], band["low"], band["high"], color=colour, alpha=0.15, linewidth=0)


def _with_superscripts(equation: str) -> str:
    """An equation as plain text, since a name beside it may have letters that mean something to mathtext."""
    return equation.replace("^alpha", "ᵅ").replace("^beta", "ᵝ")
