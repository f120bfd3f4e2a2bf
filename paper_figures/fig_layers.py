"""The layer map of the front: which layer group has which precision in each trial that no other beats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from ablate.paper_figures.palette import PRECISIONS
from ablate.paper_figures.style import LETTERS, figure, set_title, slanted, slanted_inches, thin

COLOURS = PRECISIONS | {"full": "#dddddd"}  # pale, so that the quantized groups stand out


def draw(precisions: pd.DataFrame, labels: Sequence[str], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    Args:
        precisions: (trials, layer groups), names of precisions; the groups are in the order of the model.
        labels: Of the trials.
        title: Above the map.
        path: Of the files, without their endings.
    """
    codes = precisions.map(list(COLOURS).index).to_numpy()
    colours = ListedColormap([*COLOURS.values()])
    norm = BoundaryNorm(np.arange(len(COLOURS) + 1) - 0.5, colours.N)
    height = 1.4 + slanted_inches(precisions.columns) + 0.16 * len(precisions)
    with figure(path, height, 2) as axes:
        axes.imshow(codes, cmap=colours, norm=norm, aspect="auto")
        slanted(axes.xaxis, list(precisions.columns))
        axes.set_yticks(range(len(labels)), labels, fontsize=6)
        _separate_cells(axes, *codes.shape)
        axes.spines[:].set_visible(False)
        set_title(axes, title, 2 * LETTERS)
        used = [name for name in COLOURS if (precisions == name).to_numpy().any()]
        patches = [Patch(color=COLOURS[name], label=name) for name in used]
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, borderaxespad=0.5)
        thin(axes)


def _separate_cells(axes: Any, rows: int, columns: int) -> None:
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=min(1, 40 / columns))
    axes.tick_params(which="both", length=0)
