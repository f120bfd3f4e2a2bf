"""Figures 8 and 9: images that a model classifies rightly, one a class, and images that it gets wrong."""

import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ablate.labels import shortened
from ablate.paper_figures.palette import VERMILLION
from ablate.paper_figures.style import figure

MOST = 13  # letters above an image


def draw(examples: pd.DataFrame, images: NDArray[Any], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    examples: a row an image (image, label, predicted, confidence). images: uint8 (N, H, W, 3), of which `image` is an index.
    """
    columns = min(5, len(examples))
    rows = -(-len(examples) // columns)
    with figure(path, 0.4 + 1.05 * rows, nrows=rows, ncols=columns, squeeze=False) as grid:
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (_, row) in zip(grid.flat, examples.iterrows(), strict=False):
            axes.imshow(images[int(row["image"])], interpolation="nearest")
            wrong = row["label"] != row["predicted"]
            label, predicted = shortened(row["label"], MOST), shortened(row["predicted"], MOST - 3)
            said = f"{label}\n" + (f"as {predicted}\n" if wrong else "") + f"{row['confidence']:.0%}"
            axes.set_title(said, fontsize=5.5, color=VERMILLION if wrong else "black", pad=2)
        grid[0, 0].figure.suptitle(textwrap.fill(title, 60), fontsize=7)
