"""Users' own objectives: imported where a study runs, and described in its folder for other readers."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablate.config.objectives import TABLE, Objective, add_row
from ablate.errors import BadInput, short_repr
from ablate.plugins import load_plugin

DESCRIBED = ("direction", "title", "label", "unit", "scale", "text", "in_ratios")  # fields of an Objective


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
        raise BadInput(f"{rule}, but got {short_repr(loaded)}; fix it in its module")
    return loaded


def describe(name: str) -> dict[str, Any]:
    """Describe a user's own objective, so that a run can be read where it cannot be imported.

    Args:
        name: `module:name`.

    Returns:
        The fields in DESCRIBED.

    Raises:
        BadInput: It cannot be imported, or its fields are not as `Objective` says.
    """
    row = load_objective(name)
    description = {key: getattr(row, key) for key in DESCRIBED}
    _from_description(name, description)
    return description


def register(name: str, description: Mapping[str, Any]) -> None:
    """Add a user's own objective to the table by its description, without importing it.

    Args:
        name: `module:name`.
        description: What `describe` returned.

    Raises:
        BadInput: The table has it with another description, or the description is not valid.
    """
    row = _from_description(name, description)
    if (known := TABLE.get(name)) is not None and known != row:
        other = {key: getattr(known, key) for key in DESCRIBED}
        rule = f"objective {short_repr(name)} must have one description"
        raise BadInput(f"{rule}, but got {dict(description)} and {other}; read these runs one at a time")
    add_row(name, row)


def _from_description(name: str, description: Mapping[str, Any]) -> Objective:
    """The objective without `compute`. Raises BadInput with what is wrong."""
    try:
        if unknown := [key for key in description if key not in DESCRIBED]:
            raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(DESCRIBED)}")
        row = TypeAdapter(Objective).validate_python(dict(description))
        if not row.title:
            raise ValueError("title must not be empty")
        if not (math.isfinite(row.unit) and row.unit > 0):
            raise ValueError(f"unit must be a finite number above 0, but got {row.unit}")
        if not isinstance(row.text, str):
            raise ValueError("text must be a format string, as '{:.2f} mJ'")
        row.text.format(1.0)
        return row
    except (ValidationError, ValueError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"objective {short_repr(name)} must be described in full, but: {reason}") from None


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
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"objective {short_repr(name)} must be a finite number, but got {short_repr(value)}")
    return number
