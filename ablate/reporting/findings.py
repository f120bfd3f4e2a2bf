"""What a run shows: each finding is a sentence with tables, or the reason why there is none."""

from pathlib import Path

from ablate.files import write_atomic
from ablate.reporting import (
    confusion_findings,
    data_volume_findings,
    design_findings,
    front_findings,
    grid_findings,
    importance_findings,
    scaling_findings,
    search_findings,
)
from ablate.reporting.csv_tables import to_csv
from ablate.reporting.run_results import Finding, RunResults
from ablate.runs.run import Run


def findings(run: Run) -> dict[str, Finding]:
    """All findings of a run, by name, in the order in which the command line prints them.

    Args:
        run: The run, which may still be going on.

    Returns:
        A finding for every question, also for those that the run cannot answer.
    """
    results = RunResults(run)
    return {
        "ladder": design_findings.ladder(results),
        "sensitivity": design_findings.sensitivity(results),
        "cells": design_findings.cells(results),
        "grid": grid_findings.grid(results),
        "volume": data_volume_findings.volume(results),
        "scaling": scaling_findings.scaling(results),
        "front": front_findings.front(results),
        "confirmed": front_findings.confirmed(results),
        "progress": search_findings.progress(results),
        "layers": importance_findings.layers(results),
        "parameters": importance_findings.parameters(results),
        "confusion": confusion_findings.confusion(results),
        "failures": search_findings.failures(results),
    }


def write_tables(findings: dict[str, Finding], folder: Path) -> list[Path]:
    """Write every table that has rows as NAME.csv.

    Args:
        findings: By name, as `findings` returns them.
        folder: Where the files go; it is created where it is missing.

    Returns:
        The files, in the order of the tables.

    Raises:
        OSError: A file cannot be written.
    """
    tables = {
        name: table for finding in findings.values() for name, table in finding.tables.items() if len(table)
    }
    for name, table in tables.items():
        write_atomic(folder / f"{name}.csv", to_csv(table))
    return [folder / f"{name}.csv" for name in tables]
