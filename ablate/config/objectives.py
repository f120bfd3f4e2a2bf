"""What a search minimises or maximises: one row an objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import unknown
from ablate.formatting import format_bytes, format_duration

Direction = Literal["min", "max"]
SIGN: dict[Direction, float] = {"min": 1.0, "max": -1.0}  # times a value: less is better


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


@dataclass(frozen=True)
class Objective:
    """A field of the records that a search can minimise or maximise.

    Args:
        direction: What is better.
        known: "counted" before a trial is trained, "scored" after each of its epochs, or "measured" at its end.
        title: Of its column in a table.
        axis: Of a figure.
        text: A value with its unit.
        in_ratios: Whether a halving counts the same everywhere, so that a knee is looked for in its logarithm.
    """

    direction: Direction
    known: Literal["counted", "scored", "measured"]
    title: str
    axis: Axis
    text: Callable[[float], str]
    in_ratios: bool = False


def _giga(value: float) -> str:
    return f"{value / 1e9:,.1f} G" if value >= 1e10 else f"{value / 1e9:.3g} G"


TABLE = {
    row.axis.name: row
    for row in (
        Objective(
            "max", "scored", "accuracy", Axis("accuracy", "validation accuracy (%)", 0.01), "{:.1%}".format
        ),
        Objective("min", "scored", "loss (nats)", Axis("loss", "validation loss (nats)"), "{:.3f}".format),
        Objective(
            "min",
            "counted",
            "size",
            Axis("size_bytes", "packed model (MiB)", 2**20, "log"),
            format_bytes,
            in_ratios=True,
        ),
        Objective(
            "min",
            "counted",
            "bit operations",
            Axis("bitops", "bit operations (G)", 1e9, "log"),
            _giga,
            in_ratios=True,
        ),
        Objective(
            direction="min",
            known="counted",
            title="latency (sum of layers)",
            axis=Axis("latency_ms", "latency, sum of layers (ms)", 1, "log"),
            text="{:.2f} ms".format,
            in_ratios=True,
        ),
        Objective("min", "counted", "images", Axis("images", "training images", 1, "log"), "{:,.0f}".format),
        Objective("min", "measured", "training", Axis("train_seconds", "training (s)"), format_duration),
    )
}
OBJECTIVES: dict[str, Direction] = {name: row.direction for name, row in TABLE.items()}
COLUMNS = {name: row.title for name, row in TABLE.items()}
AXES = {name: row.axis for name, row in TABLE.items()}
SPACE_OBJECTIVES = ("accuracy", "size_bytes")  # of a space that names none


def cell(objective: str, value: float) -> str:
    """An objective's value with its unit. Raises BadInput for an objective that is none."""
    if objective not in TABLE:
        raise unknown("objective", objective, TABLE)
    return TABLE[objective].text(value)


def objective_faults(objectives: tuple[str, ...]) -> list[str]:
    """What is wrong with a list of objectives, a line each."""
    faults = [str(unknown("objective", name, OBJECTIVES)) for name in objectives if name not in OBJECTIVES]
    if len(set(objectives)) < len(objectives):
        faults.append(f"objectives must differ, but got {', '.join(objectives[:12])}")
    return faults
