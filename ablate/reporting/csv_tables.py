"""Tables as CSV that no spreadsheet computes, and back."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.labels import from_spreadsheet_cell, spreadsheet_cell


def to_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV in UTF-8.

    Lists and dicts become JSON. An apostrophe goes before a text that a spreadsheet would compute, as before
    `=1+1`; `read_csv` removes it.
    """
    plain = table.map(_cell).rename(columns=spreadsheet_cell)
    text = plain.to_csv(index=False)
    if "\r" in text:  # a reader takes it for the end of a row, unless it is quoted
        text = plain.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8", "backslashreplace")


def read_csv(path: Path, *, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that `to_csv` wrote.

    Args:
        path: The file.
        texts: Columns that are texts, and that it must have.
        numbers: Columns that are numbers, and that it must have; an empty cell is NaN.

    Returns:
        The table. Any other column has numbers where all of its cells are numbers or empty, else texts.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, cut off or no such table.
    """
    text = path.read_bytes().decode()
    if not text.endswith("\n"):
        raise ValueError("it is cut off" if text else "it is empty")
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    table = table.rename(columns=from_spreadsheet_cell)
    if lacking := [name for name in (*texts, *numbers) if name not in table]:
        raise ValueError(f"it has no column {lacking[0]!r}")
    for name in table:
        values = table[name].map(from_spreadsheet_cell)
        if name not in texts:
            as_numbers = pd.to_numeric(table[name], errors="coerce")
            is_number = (as_numbers.notna() | (table[name] == "")).all()
            if name in numbers and not is_number:
                raise ValueError(f"its column {name!r} has cells that are no numbers")
            values = as_numbers if is_number else values
        table[name] = values
    return table


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = json.dumps(value)
    return spreadsheet_cell(value) if isinstance(value, str) else value
