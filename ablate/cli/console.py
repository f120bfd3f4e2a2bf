"""What all verbs share: the console, and how rows and paths are printed."""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ablate.labels import one_line

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def console_on(stderr: bool = False) -> Console:
    """A console that prints text as it is: names hold square brackets and colons that Rich would take for markup and emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


console = console_on()


def table(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows with equal keys, for people or as JSON."""
    if as_json:
        return print(json.dumps(rows, indent=1))
    shown = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        shown.add_row(
            *(
                f"{value:,}"
                if isinstance(value, int) and not isinstance(value, bool)
                else one_line(str(value))
                for value in row.values()
            )
        )
    console.print(shown)


@contextmanager
def only_json() -> Iterator[None]:
    """Within, what libraries in C print goes to stderr, as the lines of its own that HiGHS now and then has."""
    c = ctypes.CDLL(None)
    sys.stdout.flush()
    c.fflush(None)
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        c.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def short(path: Path) -> str:
    """A path as it is written from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
