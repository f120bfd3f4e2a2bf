"""What a search minimizes or maximizes: one row an objective."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ablate.errors import BadInput, short_repr, unknown
from ablate.formatting import format_bytes, format_duration
from ablate.plugins import is_plugin, load_plugin

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
            "measured": at the end. "computed": at the end, by `compute`.
        text: Formats a value with its unit.
        in_ratios: Whether a halving counts the same everywhere: a front's knee is then found on a log scale.
        compute: For a user's own objective: the value of a complete trial's record.
    """

    direction: Direction
    title: str
    label: str = ""
    unit: float = 1.0
    scale: Literal["linear", "log"] = "linear"
    known: Literal["counted", "scored", "measured", "computed"] = "computed"
    text: Callable[[float], str] = "{:.4g}".format
    in_ratios: bool = False
    compute: Callable[[Mapping[str, Any]], float] | None = None


def _giga(value: float) -> str:
    return f"{value / 1e9:,.1f} G" if value >= 1e10 else f"{value / 1e9:.3g} G"


TABLE: dict[str, Objective] = {
    "accuracy": Objective(
        "max", "accuracy", "validation accuracy (%)", 0.01, known="scored", text="{:.1%}".format
    ),
    "loss": Objective("min", "loss (nats)", "validation loss (nats)", known="scored", text="{:.3f}".format),
    "size_bytes": Objective(
        "min", "size", "packed model (MiB)", 2**20, "log", known="counted", text=format_bytes, in_ratios=True
    ),
    "bitops": Objective(
        "min", "bit operations", "bit operations (G)", 1e9, "log", known="counted", text=_giga, in_ratios=True
    ),
    "latency_ms": Objective(
        direction="min",
        title="latency (sum of layers)",
        label="latency, sum of layers (ms)",
        scale="log",
        known="counted",
        text="{:.2f} ms".format,
        in_ratios=True,
    ),
    "images": Objective(
        "min", "images", "training images", scale="log", known="counted", text="{:,.0f}".format
    ),
    "train_seconds": Objective("min", "training", "training (s)", known="measured", text=format_duration),
}
SPACE_OBJECTIVES = ("accuracy", "size_bytes")  # of a space that names none


# What others read of the rows. They change together with the table: see `register`.
OBJECTIVES: dict[str, Direction] = {}
COLUMNS: dict[str, str] = {}
AXES: dict[str, Axis] = {}


def _index(name: str, row: Objective) -> None:
    OBJECTIVES[name], COLUMNS[name] = row.direction, row.title
    AXES[name] = Axis(name, row.label or row.title, row.unit, row.scale)


for _name, _row in TABLE.items():
    _index(_name, _row)


def cell(objective: str, value: float) -> str:
    """Return an objective's value with its unit. Raises BadInput for a name that is not in the table."""
    if objective not in TABLE:
        raise unknown("objective", objective, TABLE)
    return TABLE[objective].text(value)


def objective_faults(names: tuple[str, ...]) -> list[str]:
    """Return what is wrong with a list of objectives, one line a fault.

    Args:
        names: Of the table, or users' own as `module:name`, which need not be imported yet.
    """
    strangers = [name for name in names if name not in OBJECTIVES and not is_plugin(name)]
    faults = [str(unknown("objective", name, OBJECTIVES)) for name in strangers]
    if len(set(names)) < len(names):
        faults.append(f"objectives must differ, but got {', '.join(names[:12])}")
    return faults


def load_objective(name: str) -> Objective:
    """Import a user's own objective.

    Args:
        name: `module:name` of an `Objective` with `compute`.

    Returns:
        The objective.

    Raises:
        BadInput: It cannot be imported, or is no such objective.
    """
    loaded = load_plugin("objective", name)
    if not isinstance(loaded, Objective) or loaded.compute is None or loaded.known != "computed":
        rule = f"objective {short_repr(name)} must be an ablate.Objective with compute"
        raise BadInput(f"{rule}, but got {short_repr(loaded)}; make it so in its module")
    return loaded


def describe(name: str) -> dict[str, Any]:
    """Return the description of a user's own objective. Raises BadInput where it cannot be imported."""
    row = load_objective(name)
    return {key: getattr(row, key) for key in DESCRIBED}


DESCRIBED = ("direction", "title", "label", "unit", "scale", "in_ratios")


def register(name: str, description: Mapping[str, Any]) -> None:
    """Add a user's own objective to the table by its description, without importing it.

    Raises:
        BadInput: The table has it already with another description, or the description is not one.
    """
    try:
        row = TypeAdapter(Objective).validate_python(dict(description))
        if row.compute or row.known != "computed":
            raise ValueError(f"its fields are {', '.join(DESCRIBED)}")
    except (ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"the description of objective {short_repr(name)} must be one, but: {reason}"
        ) from None
    known = TABLE.setdefault(name, row)
    if known != row:
        other = {key: getattr(known, key) for key in DESCRIBED}
        rule = f"objective {short_repr(name)} must have one description"
        raise BadInput(f"{rule}, but got {dict(description)} and {other}; read these runs one at a time")
    _index(name, row)


def compute(name: str, record: Mapping[str, Any]) -> float:
    """Return the value of a user's own objective for a complete trial.

    Args:
        name: `module:name`, imported where it is not yet.
        record: The trial's record.

    Returns:
        A finite number.

    Raises:
        BadInput: The objective cannot be imported, or its value is no finite number.
    """
    function = load_objective(name).compute
    assert function is not None
    value = function(record)
    number = float(value) if isinstance(value, int | float) else math.nan
    if not math.isfinite(number):
        raise BadInput(f"objective {short_repr(name)} must be a finite number, but got {short_repr(value)}")
    return number
