"""What a search minimises or maximises: directions, names, units and scales."""

from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import unknown
from ablate.formatting import duration, size

SCORES = ("accuracy", "loss")
COUNTED = ("images", "size_bytes", "bitops", "latency_ms")
COLUMNS = {
    "accuracy": "accuracy",
    "size_bytes": "size",
    "bitops": "bit operations",
    "latency_ms": "latency (sum of layers)",
    "loss": "loss (nats)",
    "images": "images",
    "train_seconds": "training",
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
LOGARITHMIC = ("size_bytes", "bitops", "latency_ms")  # a halving counts the same everywhere
Direction = Literal["min", "max"]
OBJECTIVES: dict[str, Direction] = {
    "accuracy": "max",
    "loss": "min",
    "size_bytes": "min",
    "bitops": "min",
    "latency_ms": "min",
    "images": "min",
    "train_seconds": "min",
}
SPACE_OBJECTIVES = ("accuracy", "size_bytes")


def cell(objective: str, value: float) -> str:
    """An objective's value with its unit. Raises BadInput for an objective that is none."""
    if objective not in COLUMNS:
        raise unknown("objective", objective, COLUMNS)
    if objective == "size_bytes":
        return size(value)
    giga = f"{value / 1e9:,.1f} G" if value >= 1e10 else f"{value / 1e9:.3g} G"
    written = {"accuracy": f"{value:.1%}", "bitops": giga, "loss": f"{value:.3f}", "images": f"{value:,.0f}"}
    written["latency_ms"] = f"{value:.2f} ms"
    return written.get(objective) or duration(value)


def objective_faults(objectives: tuple[str, ...]) -> list[str]:
    """What is wrong with a list of objectives, a line each."""
    faults = [str(unknown("objective", name, OBJECTIVES)) for name in objectives if name not in OBJECTIVES]
    if len(set(objectives)) < len(objectives):
        faults.append(f"objectives must differ, but got {', '.join(objectives[:12])}")
    return faults
