"""How long a packed model takes beside the same architecture in full precision: a panel a batch."""

from pathlib import Path
from typing import Any

import numpy as np

from ablate.paper_figures.palette import BLUE, GREY
from ablate.paper_figures.style import figure, named, set_title_of_all

MAX_COLUMNS = 3


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write path.pdf and path.png: bars are medians, marks 95th percentiles; blue: the packed model.

    Args:
        rows: As `profiling.bench.bench` returns them.
        path: Of the files, without their endings.
    """
    batches = [key.rpartition(" ")[2] for key in rows[0] if key.startswith("latency_ms")]
    names, y = [row["model"] for row in rows], np.arange(len(rows))
    colours = [BLUE if "packed" in name else GREY for name in names]
    columns = min(len(batches), MAX_COLUMNS)
    lines, width = -(-len(batches) // MAX_COLUMNS), 1 if columns == 1 else 2
    panels = {"nrows": lines, "ncols": columns, "sharey": True, "squeeze": False}
    with figure(path, 0.5 + lines * (0.5 + 0.17 * len(rows)), width, **panels) as grid:
        for axes, batch in zip(grid.flat, batches, strict=False):
            axes.barh(y, [row[f"latency_ms at batch {batch}"] for row in rows], color=colours, height=0.6)
            axes.plot([row[f"p95_ms at batch {batch}"] for row in rows], y, "|", color="black", markersize=6)
            named(axes.yaxis, names)
            axes.set_title(f"{batch} {'image' if batch == '1' else 'images'} a call", fontsize=7)
            axes.set_xlabel("latency (ms)")
        for axes in grid.flat[len(batches) :]:
            axes.set_visible(False)
        grid[0, 0].invert_yaxis()
        threads = rows[0]["threads"]
        where = f"{rows[0]['device']}, {threads} thread{'s' * (threads > 1)}"
        title = f"Median latencies and 95th percentiles, {where}; weights of the full ones are random"
        set_title_of_all(grid[0, 0].figure, title, width)
