"""What the page and the printed figures share: each quantity's axis, and each precision's colour."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

BLACK, GREY, BLUE, VERMILLION = "#000000", "#888888", "#0072b2", "#d55e00"  # Okabe and Ito, Color Universal Design, 2008
GREEN, SKY, ORANGE, PURPLE = "#009e73", "#56b4e9", "#e69f00", "#cc79a7"
PRECISIONS = {"binary": VERMILLION, "ternary": BLUE, "int4": GREEN, "int8": SKY, "full": BLACK}
OTHERS = (ORANGE, PURPLE, GREEN, SKY)  # for arms that are no precision


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


AXES = {
    axis.name: axis
    for axis in (
        Axis("accuracy", "validation accuracy (%)", 0.01),
        Axis("loss", "validation loss (nats)"),
        Axis("size_bytes", "packed model (MiB)", 2**20, "log"),
        Axis("bitops", "bit operations (G)", 1e9, "log"),
        Axis("latency_ms", "latency, sum of layers (ms)", 1, "log"),
        Axis("images", "training images", 1, "log"),
        Axis("train_seconds", "training (s)"),
    )
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each arm: that of its precision, else one that no other has, as long as there are any."""
    names = list(dict.fromkeys(names))
    taken = {PRECISIONS.get(name) for name in names}
    free = cycle([colour for colour in OTHERS if colour not in taken])
    return {name: PRECISIONS[name] if name in PRECISIONS else next(free) for name in names}
