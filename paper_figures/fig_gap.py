"""Is the data to blame? The gap to full precision against the volume of training data, and the verdict."""

from pathlib import Path
from typing import Any

import pandas as pd

from ablate.labels import left_to_right, shortened
from ablate.paper_figures.gap_info import X_LABEL, ArmGap
from ablate.paper_figures.palette import GREY
from ablate.paper_figures.style import LONGEST, figure, legend, markers, set_title, sizes


def draw(arms: dict[str, ArmGap], margin: float, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Sizes that were not kept are hollow. A gap within the margin, drawn in grey, is none. An arm whose
    baseline has another recipe has a star. The legend has the verdict, and the change of the gap in points
    over the first and the second segment of the data axis.

    Args:
        arms: By name, as `gap_info` returns them.
        margin: Of the gap, as a share.
        title: Above the axes.
        path: Of the files, without their endings.
    """
    lines, shapes = {}, markers(arms)
    with figure(path, 2.4 + 0.14 * len(arms)) as axes:
        axes.axhspan(-100 * margin, 100 * margin, color=GREY, alpha=0.2, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.6)
        for i, (name, arm) in enumerate(arms.items()):
            shift = 1.03 ** (i - (len(arms) - 1) / 2)  # side by side
            lines[_legend_text(name, arm)] = _draw_arm(axes, arm, shapes[name], shift)
        axes.set(xscale="log", xlabel=X_LABEL, ylabel="gap to full precision (points)")
        if not all(arm.same_recipe for arm in arms.values()):
            title += "\n* to full precision by another recipe: recipe and weights together"
        set_title(axes, title)
        legend(axes.figure, lines, fontsize=6, loc="outside lower center")
        sizes(axes.xaxis, pd.concat([arm.sizes["images"] for arm in arms.values()]))


def _draw_arm(axes: Any, arm: ArmGap, marker: str, shift: float) -> Any:
    """Returns the line of the means."""
    colour, kept = arm.colour, arm.sizes[arm.sizes["kept"].astype(bool)]
    style = {"color": colour, "linewidth": 1, "marker": marker, "markersize": 4}
    line = axes.plot(kept["images"] * shift, kept["gap"], **style)[0]
    for _, row in arm.sizes.iterrows():
        x, face = row["images"] * shift, colour if row["kept"] else "white"
        axes.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1)
        axes.plot([x], [row["gap"]], marker, color=colour, markersize=4, markerfacecolor=face)
    return line


def _legend_text(name: str, arm: ArmGap) -> str:
    verdict, name = arm.verdict, left_to_right(shortened(name, LONGEST)) + ("" if arm.same_recipe else "*")
    if pd.isna(verdict["first"]):
        return f"{name}: {verdict['verdict']}"
    first, second = (f"{100 * float(verdict[key]):+z.1f}" for key in ("first", "second"))
    return f"{name}: {verdict['verdict']} ({first}, {second})"
