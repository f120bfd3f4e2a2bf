"""What a run shows: each finding a sentence and tables, or the reason why there is none."""

import csv
import json
from pathlib import Path

from ablate.files import write_atomic
from ablate.reporting import design_findings, search_findings
from ablate.reporting.run_results import Finding, Seen
from ablate.runs.run import Run


def findings(run: Run) -> dict[str, Finding]:
    """All that a run shows, by name, the answer first."""
    seen = Seen(run)
    return {
        "ladder": design_findings.ladder(seen),
        "sensitivity": design_findings.sensitivity(seen),
        "cells": design_findings.cells(seen),
        "volume": design_findings.volume(seen),
        "scaling": design_findings.scaling(seen),
        "front": search_findings.front(seen),
        "confirmed": search_findings.confirmed(seen),
        "progress": search_findings.progress(seen),
        "layers": search_findings.layers(seen),
        "parameters": search_findings.parameters(seen),
        "confusion": search_findings.confusion(seen),
        "failures": search_findings.failures(seen),
    }


def write_tables(found: dict[str, Finding], folder: Path) -> list[Path]:
    """Write every table that has rows as NAME.csv into a folder; their paths."""
    tables = {
        name: table for finding in found.values() for name, table in finding.tables.items() if len(table)
    }
    for name, table in tables.items():
        plain = table.map(lambda value: json.dumps(value) if isinstance(value, dict | list) else value)
        text = plain.to_csv(index=False)
        if "\r" in text:  # which ends a row for those who read it, unless it is quoted
            text = plain.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
        write_atomic(folder / f"{name}.csv", text.encode("utf-8", "backslashreplace"))
    return [folder / f"{name}.csv" for name in tables]
