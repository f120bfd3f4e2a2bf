"""What a run shows: each finding a sentence and tables, or the reason why there is none."""

import csv
import json
from pathlib import Path

from ablate import designed, searched
from ablate.files import store
from ablate.runs.run import Run
from ablate.seen import Finding, Seen


def findings(run: Run) -> dict[str, Finding]:
    """All that a run shows, by name, the answer first."""
    seen = Seen(run)
    return {
        "ladder": designed.ladder(seen),
        "sensitivity": designed.sensitivity(seen),
        "cells": designed.cells(seen),
        "volume": designed.volume(seen),
        "scaling": designed.scaling(seen),
        "front": searched.front(seen),
        "confirmed": searched.confirmed(seen),
        "progress": searched.progress(seen),
        "layers": searched.layers(seen),
        "parameters": searched.parameters(seen),
        "confusion": searched.confusion(seen),
        "failures": searched.failures(seen),
    }


def write_tables(found: dict[str, Finding], folder: Path) -> list[Path]:
    """Write every table that has rows as NAME.csv into a folder; their paths."""
    tables = {name: table for finding in found.values() for name, table in finding.tables.items() if len(table)}
    for name, table in tables.items():
        plain = table.map(lambda value: json.dumps(value) if isinstance(value, dict | list) else value)
        text = plain.to_csv(index=False)
        if "\r" in text:  # which ends a row for those who read it, unless it is quoted
            text = plain.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
        store(folder / f"{name}.csv", text.encode("utf-8", "backslashreplace"))
    return [folder / f"{name}.csv" for name in tables]
