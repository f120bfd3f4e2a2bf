"""Accuracy against packed size: every trial, the front, and the anchors by name."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ablate.paper_figures.style import BLUE, GREEN, GREY, ORANGE, figure

ANCHORS = {"full": ("o", BLUE), "ternary": ("s", GREEN), "binary": ("^", ORANGE)}


def draw(records: pd.DataFrame, front: pd.DataFrame, objectives: Sequence[str], path: Path) -> None:
    """Write path.pdf and path.png. records: all trials; front: those of them on the front over `objectives`."""
    complete = records[records["status"] == "complete"]
    with figure(path) as axes:
        axes.scatter(complete["size_bytes"] / 2**20, 100 * complete["accuracy"], s=8, color=GREY, label="trials", linewidths=0)
        order = front.sort_values("size_bytes")
        axes.scatter(
            order["size_bytes"] / 2**20,
            100 * order["accuracy"],
            s=22,
            facecolors="none",
            edgecolors="black",
            linewidths=0.8,
            label=f"front over {', '.join(objectives)}",
        )
        axes.set(xscale="log", xlabel="packed model (MiB)", ylabel="validation accuracy (%)")
        axes.legend()
