"""Figures 8 and 9: images that a model classifies rightly, one a class, and images that it gets wrong."""

from pathlib import Path
from typing import Any

import pandas as pd

from ablate.labels import shortened
from ablate.paper_figures.palette import VERMILLION
from ablate.paper_figures.style import figure, set_title_of_all

MAX_LETTERS = 13  # of a name above an image


def draw(examples: pd.DataFrame, images: Any, title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        examples: A row an image (image, label, predicted, confidence); `image` is an index of `images`.
        images: uint8 (N, H, W, 3), an array or what is indexed like one.
        title: Above the images.
        path: Of the files, without their endings.
    """
    columns = min(5, len(examples))
    rows = -(-len(examples) // columns)
    with figure(path, 0.4 + 1.05 * rows, nrows=rows, ncols=columns, squeeze=False) as grid:
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (_, row) in zip(grid.flat, examples.iterrows(), strict=False):
            axes.imshow(images[int(row["image"])], interpolation="nearest")
            is_wrong = row["label"] != row["predicted"]
            lines = [shortened(row["label"], MAX_LETTERS)]
            if is_wrong:
                lines.append(f"as {shortened(row['predicted'], MAX_LETTERS - 3)}")
            lines.append(f"{row['confidence']:.0%}")
            axes.set_title("\n".join(lines), fontsize=5.5, color=VERMILLION if is_wrong else "black", pad=2)
        set_title_of_all(grid[0, 0].figure, title)
