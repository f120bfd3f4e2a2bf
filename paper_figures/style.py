"""One house style for every figure: column width, embedded TrueType fonts, colours safe for colour blindness."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN_INCHES = 3.5
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"  # Okabe & Ito
RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
    "legend.frameon": False,
    "savefig.dpi": 300,
}


@contextmanager
def figure(path: Path, height_inches: float = 2.6) -> Iterator[Axes]:
    """Axes to draw on; saved as `path`.pdf and `path`.png at the end, byte for byte the same for the same input."""
    with matplotlib.rc_context(RC):
        canvas = Figure((COLUMN_INCHES, height_inches), layout="constrained")
        yield canvas.subplots()
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
        canvas.savefig(path.with_suffix(".png"))
