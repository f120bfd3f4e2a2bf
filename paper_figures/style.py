"""One style for every figure: column width, embedded TrueType fonts, safe for colour blindness."""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.cells import cell_len

from ablate.files import write_atomic
from ablate.labels import one_line, shortened_alike, wrapped
from ablate.paper_figures.fonts import FAMILY, fit, numbered

COLUMN_INCHES = 3.5
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_SIZES = 6  # whose numbers stand beside each other in a column
LONGEST = 28  # letters of a name at an axis or in a legend
LETTERS = 60  # of a title, a column
# matplotlib's defaults, whatever the user's matplotlibrc says.
DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
RC: Any = {
    "font.family": [FAMILY],
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


def markers(names: Iterable[str]) -> dict[str, str]:
    """A marker for each arm, in the order in which they come; that of `full` is a cross."""
    shapes = cycle(MARKERS)
    return {name: "x" if name == "full" else next(shapes) for name in dict.fromkeys(names)}


def plain(axis: Any) -> None:
    """Plain numbers at the ticks of a logarithmic axis, not powers of ten."""
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def sizes(axis: Any, images: Iterable[int]) -> None:
    """Put ticks at the sizes of the training sets where they are few; the axis is logarithmic."""
    if len(ticks := sorted(set(images))) > MOST_SIZES:
        return plain(axis)
    axis.set_ticks(ticks, [f"{size:,}" for size in ticks])
    axis.set_ticks([], minor=True)


def set_title(axes: Any, text: str, letters: int = LETTERS) -> None:
    """Set a title; no line of it has more than so many letters."""
    axes.set_title(_title(text, letters), fontsize=7)


def set_title_of_all(canvas: Figure, text: str, columns: int = 1) -> None:
    """Set a title above all panels, in the middle of a figure as wide as so many columns."""
    canvas.suptitle(_title(text, columns * LETTERS), fontsize=7)


def _title(text: str, letters: int) -> str:
    return "\n".join(wrapped(one_line(line), letters) for line in text.split("\n"))


def named(axis: Any, names: Sequence[str], longest: int = LONGEST, **style: Any) -> None:
    """Put names at 0, 1, ... of an axis, shortened; `style` goes to Axis.set_ticks."""
    axis.set_ticks(range(len(names)), shortened_alike(names, longest), fontsize=6, **style)


def slanted(axis: Any, names: Sequence[str], longest: int = LONGEST) -> None:
    """Put names at 0, 1, ... of a horizontal axis that has no room for them side by side."""
    named(axis, names, longest, rotation=60, ha="right", rotation_mode="anchor")


def slanted_inches(names: Sequence[str]) -> float:
    """The height of slanted names."""
    return 0.05 * max(0, min(LONGEST, max(map(cell_len, names), default=0)) - 16)


def thin(axes: Any, which: str = "xy") -> None:
    """Hide every second name at an axis, or more, where they are closer than their letters are high.

    Args:
        axes: With names at 0, 1, ...
        which: Of its axes have names, "x", "y" or "xy".
    """
    lay_out(axes.figure)
    for name, pixels in (("x", axes.bbox.width), ("y", axes.bbox.height)):
        if name not in which:
            continue
        axis = getattr(axes, f"{name}axis")
        labels, (low, high) = axis.get_ticklabels(), axis.get_view_interval()
        points = 72 / axes.figure.dpi * pixels / abs(high - low)  # from one name to the next
        step = math.ceil(1.4 * labels[0].get_fontsize() / points)
        for i, label in enumerate(labels):
            label.set_visible(i % step == 0)


def lay_out(canvas: Figure) -> None:
    """Lay a figure out, so that the place of everything on it is known."""
    fit(canvas)
    canvas.draw_without_rendering()


def legend(owner: Any, parts: dict[str, Any], **style: Any) -> Any:
    """Draw a legend that shows every name; matplotlib leaves out those that begin with an underscore.

    Args:
        owner: The axes, or the figure, to draw it in.
        parts: What was drawn, by the name to show.
        style: Goes to Axes.legend or Figure.legend.

    Returns:
        The legend.
    """
    box = owner.legend(list(parts.values()), ["name"] * len(parts), **style)
    for text, name in zip(box.get_texts(), parts, strict=True):
        text.set_text(name)
    return box


@contextmanager
def figure(path: Path, height_inches: float = 2.6, columns: int = 1, **panels: Any) -> Iterator[Any]:
    """A figure to draw on, saved at the end as `path`.pdf and `path`.png.

    The same input gives the same bytes.

    Args:
        path: Of the files, without their endings.
        height_inches: Of the figure.
        columns: Of a page, that the figure is wide.
        panels: Go to Figure.subplots.

    Yields:
        Axes, or an array of them.
    """
    with matplotlib.rc_context(DEFAULTS | RC), numbered():
        canvas = Figure((columns * COLUMN_INCHES, height_inches), layout="constrained")
        yield canvas.subplots(**panels)
        fit(canvas)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
            canvas.savefig(file := io.BytesIO(), format=suffix, metadata=metadata)
            write_atomic(path.with_name(f"{path.name}.{suffix}"), file.getvalue())
