"""Output that all commands share: the console, tables of rows, and paths."""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ablate.labels import one_line


def make_console(stderr: bool = False) -> Console:
    """Make a console that prints text as it is.

    Names may hold square brackets and colons, which Rich would otherwise read as markup and emoji.

    Args:
        stderr: Print to standard error instead of standard output.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


console = make_console()


def print_line(text: str) -> None:
    """Print a line to standard output and leave wrapping to the terminal, so that it can be copied whole."""
    console.print(one_line(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=1))


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows with equal keys as a table.

    Args:
        rows: One or more rows. The keys are the column names.
        as_json: Print them as JSON instead.
    """
    if as_json:
        return print_json(rows)
    table = plain_table(*rows[0])
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Make a table without borders.

    Args:
        *columns: The column headings.
        title: A line above the table, aligned left.
    """
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)


def _cell(value: Any) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_number else one_line(str(value))


@contextmanager
def c_stdout_to_stderr() -> Iterator[None]:
    """Send what C libraries print to standard error, so that standard output holds nothing but JSON.

    HiGHS, for one, now and then prints lines of its own.
    """
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(saved, 1)
        os.close(saved)


def relative_path(path: Path) -> str:
    """A path relative to the working directory if it lies below it, else as it is."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
