"""What a search minimizes or maximizes: one row an objective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import unknown
from ablate.formatting import format_bytes, format_duration
from ablate.plugins import is_plugin

Direction = Literal["min", "max"]
SIGN: dict[Direction, float] = {"min": 1.0, "max": -1.0}  # times a value: less is better


@dataclass(frozen=True)
class Axis:
    """How a field of the records is drawn.

    Args:
        name: The field.
        label: The title of the axis, with the unit.
        unit: The drawn value is the field divided by it.
        scale: Of the axis.
    """

    name: str
    label: str
    unit: float = 1.0
    scale: Literal["linear", "log"] = "linear"

    def __call__(self, rows: Any) -> Any:
        """Return the field of a table, or of one row, in the unit of the axis."""
        return rows[self.name] / self.unit


@dataclass(frozen=True)
class Objective:
    """A number of each record that a search can minimize or maximize.

    Args:
        direction: "min" or "max": what is better.
        title: The title of a table's column.
        label: The title of an axis, with the unit; `title` by default.
        unit: A figure shows the value divided by it.
        scale: Of an axis, "linear" or "log".
        known: When the value is known. "counted": before the trial is trained. "scored": after each epoch.
            "measured": at the end, a cost. "computed": at the end, by `compute` or from the model's outputs.
        text: Formats a value with its unit: a format string, or for our own a function.
        in_ratios: Whether a halving counts the same everywhere: a front's knee is then found on a log scale.
        compute: For a user's own objective: the value of a complete trial's record.
    """

    direction: Direction
    title: str
    label: str = ""
    unit: float = 1.0
    scale: Literal["linear", "log"] = "linear"
    known: Literal["counted", "scored", "measured", "computed"] = "computed"
    text: Callable[[float], str] | str = "{:.4g}"
    in_ratios: bool = False
    compute: Callable[[Mapping[str, Any]], float] | None = None


def _giga(value: float) -> str:
    return f"{value / 1e9:,.1f} G" if value >= 1e10 else f"{value / 1e9:.3g} G"


TABLE: dict[str, Objective] = {
    "accuracy": Objective("max", "accuracy", "validation accuracy (%)", 0.01, known="scored", text="{:.1%}"),
    "loss": Objective("min", "loss (nats)", "validation loss (nats)", known="scored", text="{:.3f}"),
    "size_bytes": Objective(
        "min", "size", "packed model (MiB)", 2**20, "log", known="counted", text=format_bytes, in_ratios=True
    ),
    "bitops": Objective(
        "min", "bit operations", "bit operations (G)", 1e9, "log", known="counted", text=_giga, in_ratios=True
    ),
    "latency_ms": Objective(
        direction="min",
        title="latency (sum of parts)",
        label="latency, sum of parts (ms)",
        scale="log",
        known="counted",
        text="{:.2f} ms",
        in_ratios=True,
    ),
    "images": Objective("min", "images", "training images", scale="log", known="counted", text="{:,.0f}"),
    "train_seconds": Objective("min", "training", "training (s)", known="measured", text=format_duration),
    "peak_memory_bytes": Objective(
        direction="min",
        title="peak memory",
        label="peak memory of inference (MiB)",
        unit=2**20,
        scale="log",
        known="measured",
        text=format_bytes,
        in_ratios=True,
    ),
    "energy_mj": Objective(
        direction="min",
        title="energy an image",
        label="energy an image (mJ)",
        scale="log",
        known="measured",
        text="{:.4g} mJ",
        in_ratios=True,
    ),
    "calibration_error": Objective(
        "min", "calibration error", "expected calibration error (%)", 0.01, known="computed", text="{:.1%}"
    ),
    "robust_accuracy": Objective(
        "max", "robust accuracy", "accuracy on corrupted images (%)", 0.01, known="computed", text="{:.1%}"
    ),
}
SPACE_OBJECTIVES = ("accuracy", "size_bytes")  # of a space that names none


# What others read of the rows. `add_row` changes them together with the table.
OBJECTIVES: dict[str, Direction] = {}
COLUMNS: dict[str, str] = {}
AXES: dict[str, Axis] = {}


def add_row(name: str, row: Objective) -> None:
    """Add an objective to the table, or index one that is in it."""
    TABLE[name] = row
    OBJECTIVES[name], COLUMNS[name] = row.direction, row.title
    AXES[name] = Axis(name, row.label or row.title, row.unit, row.scale)


for _name, _row in TABLE.items():
    add_row(_name, _row)


def cell(objective: str, value: float) -> str:
    """Return an objective's value with its unit. Raises BadInput for a name that is not in the table."""
    if objective not in TABLE:
        raise unknown("objective", objective, TABLE)
    text = TABLE[objective].text
    return text.format(value) if isinstance(text, str) else text(value)


def objective_faults(names: tuple[str, ...]) -> list[str]:
    """Return what is wrong with a list of objectives, one line a fault.

    Args:
        names: Of the table, or users' own as `module:name`, which need not be imported yet.
    """
    strangers = [name for name in names if name not in OBJECTIVES and not is_plugin(name)]
    faults = [str(unknown("objective", name, OBJECTIVES)) for name in strangers]
    if len(set(names)) < len(names):
        faults.append(f"objectives must differ, but got {', '.join(names[:12])}")
    ends = {
        f"{name}{end}" for name in names for end in ("_low", "_high")
    }  # columns of its interval in tables
    faults += [
        f"objective {name!r} has the name of another's interval; rename it" for name in names if name in ends
    ]
    return faults
