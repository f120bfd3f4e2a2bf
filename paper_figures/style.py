"""One house style for every figure: column width, embedded TrueType fonts, colours safe for colour blindness."""

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablate.files import write_atomic
from ablate.labels import one_line, shortened_alike
from ablate.paper_figures.palette import colours

COLUMN_INCHES = 3.5
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_SIZES = 6  # whose numbers stand beside each other in a column
LONGEST = 28  # letters of a name at an axis or in a legend
LETTERS = 60  # of a title, a column
RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType
    "legend.frameon": False,
    "savefig.dpi": 300,
    "text.parse_math": False,  # a name with two dollars is no formula
    "text.usetex": False,
}


def arms(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each arm, in the order in which they come; that of `full` is a cross."""
    markers = cycle(MARKERS)
    return {
        name: (colour, "x" if name == "full" else next(markers)) for name, colour in colours(names).items()
    }


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


def set_title(axes: Any, text: str, letters: int = LETTERS) -> None:
    """A title in lines of at most so many letters."""
    axes.set_title("\n".join(textwrap.fill(one_line(line), letters) for line in text.split("\n")), fontsize=7)


def named(axis: Any, names: Sequence[str], size: float = 6, **how: Any) -> None:
    """Names at 0, 1, ... of an axis, each in little room."""
    axis.set_ticks(range(len(names)), shortened_alike(names, LONGEST), fontsize=size, **how)


def thin(axes: Any) -> None:
    """Where names at an axis stand closer than their letters are high, leave every second out, or more."""
    axes.figure.draw_without_rendering()
    for axis, pixels in ((axes.xaxis, axes.bbox.width), (axes.yaxis, axes.bbox.height)):
        labels, low_high = axis.get_ticklabels(), axis.get_view_interval()
        points = 72 / axes.figure.dpi * pixels / abs(low_high[1] - low_high[0])  # from one place to the next
        step = math.ceil(1.4 * labels[0].get_fontsize() / points)
        for i, label in enumerate(labels):
            label.set_visible(i % step == 0)


def legend(axes: Any, parts: dict[str, Any], **how: Any) -> Any:
    """A legend of parts by their names, also of one that begins with an underscore, which matplotlib would leave out."""
    drawn = axes.legend(list(parts.values()), ["name"] * len(parts), **how)
    for text, name in zip(drawn.get_texts(), parts, strict=True):
        text.set_text(name)
    return drawn


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
            write_atomic(path.with_name(f"{path.name}.{suffix}"), drawn.getvalue())
