"""The parts of Table 1: a cell with its source, a row, and the whole table."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

QUANTITIES = {  # name -> its unit, and by what it is divided to be shown
    "accuracy": ("top-1", 1),
    "state": ("bytes", 2**20),
    "packed": ("bytes", 2**20),
    "latency": ("ms", 1),
    "returned": ("ms", 1),
    "macs": ("MACs", 1e9),
    "bitops": ("bit operations", 1e12),
    "parameters": ("parameters", 1e6),
}
COUNTED = ("state", "packed", "macs", "bitops", "parameters")


@dataclass(frozen=True)
class Cell:
    """A value with its source.

    Args:
        value: In the unit of its quantity.
        source: Whether it is counted, measured here, or quoted from the paper.
        printed: The paper's own digits.
        n: Calls that were timed, or seeds.
        sd: Standard deviation over the seeds.
        split: On which images an accuracy was measured, as `formatting.split_name` names them.
        failed: Seeds whose training failed; they are not among the n.
    """

    value: int | float
    source: Literal["counted", "measured", "quoted"]
    printed: str | None = None
    n: int | None = None
    sd: float | None = None
    split: str | None = None
    failed: int | None = None


@dataclass(frozen=True)
class Row:
    """A model.

    Args:
        name: Of the model.
        beside: The paper's model whose part it plays; of the paper's own row that model itself.
        cells: By quantity, in the order of QUANTITIES.
    """

    name: str
    beside: str
    cells: dict[str, Cell]

    @property
    def quoted(self) -> bool:
        """Whether the row is the paper's own."""
        return all(cell.source == "quoted" for cell in self.cells.values())


@dataclass(frozen=True)
class Table1:
    """The whole table.

    Args:
        rows: In the paper's order; of each of its models the printed row comes first.
        notes: Those that belong below.
        about: `device`, `threads` and `batch` of the measurements.
    """

    rows: list[Row]
    notes: list[str]
    about: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The table as plain data, for JSON; counts are integers."""
        rows = [
            {**asdict(row), "cells": {name: _without_none(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"rows": rows, "notes": self.notes, **self.about}


def _without_none(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in asdict(cell).items() if value is not None}
