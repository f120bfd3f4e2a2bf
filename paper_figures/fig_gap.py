"""Is the data to blame? The gap to full precision against the volume of training data, and the verdict."""

from pathlib import Path

import numpy as np
import pandas as pd

from ablate.labels import shortened
from ablate.paper_figures.palette import GREY
from ablate.paper_figures.style import LONGEST, arms, figure, legend, set_title, sizes


def draw(gaps: pd.DataFrame, verdicts: pd.DataFrame, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    gaps: a row an arm and size (arm, images, kept, gap, low, high, band_low, band_high), shares of 1; sizes that were not
    kept are hollow. verdicts: a row an arm (arm, verdict, same_recipe, slope, slope_low, slope_high, margin); a gap within the
    margin, drawn in grey, is none; an arm whose baseline has another recipe has a star.
    """
    told, margin = verdicts.set_index("arm"), verdicts["margin"].iloc[0]
    looks, lines = arms(gaps["arm"]), {}
    with figure(path, 2.8) as axes:
        axes.axhspan(-100 * margin, 100 * margin, color=GREY, alpha=0.2, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.6)
        for i, (arm, (colour, marker)) in enumerate(looks.items()):
            rows = gaps[gaps["arm"] == arm]
            kept, apart = (
                rows[rows["kept"].astype(bool)],
                1.03 ** (i - (len(looks) - 1) / 2),
            )  # side by side, to be seen
            look = {"color": colour, "linewidth": 1, "marker": marker, "markersize": 4}
            lines[_words(arm, told.loc[arm])] = axes.plot(kept["images"] * apart, 100 * kept["gap"], **look)[
                0
            ]
            axes.fill_between(
                kept["images"],
                100 * kept["band_low"],
                100 * kept["band_high"],
                color=colour,
                alpha=0.12,
                lw=0,
            )
            for _, row in rows.iterrows():
                x, face = row["images"] * apart, colour if row["kept"] else "white"
                axes.plot([x, x], [100 * row["low"], 100 * row["high"]], color=colour, linewidth=1)
                axes.plot([x], [100 * row["gap"]], marker, color=colour, markersize=4, markerfacecolor=face)
        axes.set(xscale="log", xlabel="training images", ylabel="gap to full precision (points)")
        starred = (
            ""
            if verdicts["same_recipe"].all()
            else "\n* to full precision by another recipe: recipe and weights together"
        )
        set_title(axes, title + starred)
        legend(axes, lines, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        sizes(axes.xaxis, gaps["images"])


def _words(arm: str, told: "pd.Series[float]") -> str:
    arm = shortened(arm, LONGEST) + ("" if told["same_recipe"] else "*")
    if not np.isfinite(float(told["slope"] if told["slope"] is not None else np.nan)):
        return f"{arm}: {told['verdict']}"
    slope, low, high = (100 * float(told[name]) for name in ("slope", "slope_low", "slope_high"))
    return f"{arm}: {told['verdict']}, {slope:+.1f} points a decade ({low:+.1f} to {high:+.1f})"
