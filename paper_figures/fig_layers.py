"""The layer map of the front: which layer group has which precision in each trial that no other beats."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from ablate.paper_figures.palette import PRECISIONS
from ablate.paper_figures.style import LETTERS, LONGEST, figure, named, set_title, thin


def draw(precisions: pd.DataFrame, labels: Sequence[str], title: str, path: Path) -> None:
    """Write path.pdf and path.png.

    precisions: (trials, layer groups) of names of precisions, the columns in the order of the model. labels: of the trials.
    """
    names = [name for name in PRECISIONS if (precisions == name).to_numpy().any()]
    codes = precisions.map(list(PRECISIONS).index).to_numpy()
    looks = PRECISIONS | {"full": "#dddddd"}  # what was left as it was stands back
    colours = ListedColormap([*looks.values()])
    longest = min(LONGEST, max(len(name) for name in precisions.columns))
    with figure(path, 1.4 + 0.05 * max(0, longest - 16) + 0.16 * len(precisions), 2) as axes:
        axes.imshow(
            codes,
            cmap=colours,
            norm=BoundaryNorm(np.arange(len(PRECISIONS) + 1) - 0.5, colours.N),
            aspect="auto",
        )
        named(axes.xaxis, list(precisions.columns), rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(labels)), labels, fontsize=6)
        axes.set_xticks(np.arange(precisions.shape[1] + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=min(1, 40 / precisions.shape[1]))
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        set_title(axes, title, 2 * LETTERS)
        patches = [Patch(color=looks[name], label=name) for name in names]
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, borderaxespad=0.5)
        thin(axes)
