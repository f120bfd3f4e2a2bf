"""One house style for every figure: column width, embedded TrueType fonts, colours safe for colour blindness."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLUMN_INCHES = 3.5
GREY = "#888888"
RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType
    "legend.frameon": False,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Axis:
    """How a field of the records is drawn: divided by its unit, named with it."""

    name: str
    label: str
    unit: float = 1.0
    scale: Literal["linear", "log"] = "linear"

    def __call__(self, rows: Any) -> Any:
        """The field of a table or of one row, in the axis' unit."""
        return rows[self.name] / self.unit


AXES = (
    Axis("accuracy", "validation accuracy (%)", 0.01),
    Axis("loss", "validation loss (nats)"),
    Axis("size_bytes", "packed model (MiB)", 2**20, "log"),
    Axis("bitops", "bit operations (G)", 1e9, "log"),
    Axis("latency_ms", "latency, sum of layers (ms)", 1, "log"),
    Axis("images", "training images", 1, "log"),
    Axis("train_seconds", "training (s)"),
)


def axis(name: str) -> Axis:
    """The axis of a field."""
    return next(axis for axis in AXES if axis.name == name)


def plain(axis: Any) -> None:
    """Plain numbers at the ticks of a logarithmic axis, not powers of ten."""
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


@contextmanager
def figure(path: Path, height_inches: float = 2.6, columns: int = 1, **panels: Any) -> Iterator[Any]:
    """Axes to draw on, or an array of them (`panels` go to Figure.subplots), `columns` of a page wide.

    Saved as `path`.pdf and `path`.png at the end, byte for byte the same for the same input.
    """
    with matplotlib.rc_context(RC):
        canvas = Figure((columns * COLUMN_INCHES, height_inches), layout="constrained")
        yield canvas.subplots(**panels)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
        canvas.savefig(path.with_suffix(".png"))
