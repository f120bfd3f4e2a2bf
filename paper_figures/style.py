"""One house style for every figure: column width, embedded TrueType fonts, colours safe for colour blindness."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablate.files import store
from ablate.looks import colours

COLUMN_INCHES = 3.5
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_SIZES = 6  # whose numbers stand beside each other in a column
RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType
    "legend.frameon": False,
    "savefig.dpi": 300,
}


def arms(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each arm, in the order in which they come; that of `full` is a cross."""
    markers = cycle(MARKERS)
    return {name: (colour, "x" if name == "full" else next(markers)) for name, colour in colours(names).items()}


def plain(axis: Any) -> None:
    """Plain numbers at the ticks of a logarithmic axis, not powers of ten."""
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def sizes(axis: Any, images: Iterable[int]) -> None:
    """Ticks at the sizes of the training sets themselves where they are few, on a logarithmic axis."""
    if len(at := sorted(set(images))) > MOST_SIZES:
        return plain(axis)
    axis.set_ticks(at, [f"{size:,}" for size in at])
    axis.set_ticks([], minor=True)


@contextmanager
def figure(path: Path, height_inches: float = 2.6, columns: int = 1, **panels: Any) -> Iterator[Any]:
    """Axes to draw on, or an array of them (`panels` go to Figure.subplots), `columns` of a page wide.

    Saved as `path`.pdf and `path`.png at the end, byte for byte the same for the same input.
    """
    with matplotlib.rc_context(RC):
        canvas = Figure((columns * COLUMN_INCHES, height_inches), layout="constrained")
        yield canvas.subplots(**panels)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
            canvas.savefig(drawn := io.BytesIO(), format=suffix, metadata=metadata)
            store(path.with_suffix(f".{suffix}"), drawn.getvalue())
