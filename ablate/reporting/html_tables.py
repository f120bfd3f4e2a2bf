"""The tables of the report page: which rows and columns it shows, and how it writes their values."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from ablate.config.objectives import COLUMNS, cell
from ablate.reporting.plotly_front import shown_trials
from ablate.reporting.run_results import Finding

MAX_ROWS = 20  # of a table on the page; its file has all
OPEN = ("front", "failures", "hypervolumes", "differences", "differing")  # findings whose tables are unfolded
LONG = ("layers", "error", "flags", "equation", "text", "reason")  # columns whose text may break into lines
ENDS = ("", "_low", "_high", "_smallest")
ESTIMATES = [name + end for name in ("first", "second", "whole", "bend", "gap") for end in ENDS]
PERCENT = {  # columns of shares in [0, 1]
    "verdicts": ("margin", *ESTIMATES),
    "changes": ("value", "low", "high", "margin", "smallest", "error"),
    "gaps": ("accuracy_baseline", "accuracy_arm", "gap", "low", "high"),
    "ladder": ("mean", "low", "high", "gain", "gain_low", "gain_high", "cost", "cost_low", "cost_high"),
    "surface": ("gap", "low", "high"),
    "cells": ("mean", "low", "high"),
    "bought": ("mean", "low", "high"),
    "sensitivity": ("accuracy_cost", "accuracy_low", "accuracy_high"),
    "confusion": ("share",),
    "front": ("front_probability",),
}


class Cell(NamedTuple):
    """One cell: its text, its CSS class, and for the button of a trial the place among `shown_trials`."""

    text: str
    style: str
    trial: int | None = None


@dataclass(frozen=True)
class HtmlTable:
    """One table of the page.

    Args:
        name: Of its CSV file.
        head: The headings.
        rows: At most MAX_ROWS.
        count: How many rows there are, and how many of them are shown.
        is_cut: Whether rows are left out.
        is_open: Whether it is shown unfolded; others only repeat a figure in numbers.
    """

    name: str
    head: list[Cell]
    rows: list[list[Cell]]
    count: str
    is_cut: bool
    is_open: bool


def html_tables(name: str, finding: Finding) -> list[HtmlTable]:
    """The tables of a finding that have rows.

    Args:
        name: Of the finding.
        finding: Of a run.
    """
    tables = _shown_tables(name, finding).items()
    return [_html_table(table, rows, name in OPEN) for table, rows in tables if len(rows)]


def _shown_tables(name: str, finding: Finding) -> dict[str, pd.DataFrame]:
    tables = finding.tables
    if not finding or name == "progress":
        return {}
    if name == "front":
        sizes = {"front_sizes": tables["front_sizes"]} if "front_sizes" in tables else {}
        return {"front": _front(tables["trials"]), **sizes}
    if name == "confusion":
        table = tables["confusion"]
        wrong = table[(table["label"] != table["predicted"]) & (table["count"] > 0)]
        return {"confusion": wrong.sort_values("count", ascending=False, kind="stable")}
    if name == "differences":  # their names say the level
        return {name: tables[name].drop(columns="level")}
    if name == "volume":
        names = ("verdicts", "gaps", "needed", "bought")
        return {key: tables[key].drop(columns="sentence", errors="ignore") for key in names}
    return dict(list(tables.items())[:1])


def _front(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the front, indexed by their place among `shown_trials`; empty columns are left out."""
    shown = shown_trials(trials).reset_index(drop=True).rename(columns={"trial_id": "trial"})
    rows = shown[shown["front"]].sort_values("accuracy", ascending=False)
    values = list(shown.loc[:, "accuracy":"layers"])[:-1]
    varied = [name for name in ("seed", "fraction") if shown[name].nunique() > 1]
    return rows[["trial", *values, "front_probability", *varied, "layers"]].dropna(axis=1, how="all")


def _html_table(name: str, table: pd.DataFrame, is_open: bool) -> HtmlTable:
    styles = {column: _style(column, table[column]) for column in table}
    rows = [
        [
            _cell(name, column, value, style, index)
            for (column, style), value in zip(styles.items(), row, strict=True)
        ]
        for index, *row in table.head(MAX_ROWS).astype(object).itertuples()
    ]
    n, is_cut = len(table), len(table) > MAX_ROWS
    count = f"the first {MAX_ROWS} of {n:,} rows" if is_cut else f"{n} row{'s' if n > 1 else ''}"
    head = [Cell(_heading(name, column), style) for column, style in styles.items()]
    return HtmlTable(name, head, rows, count, is_cut, is_open)


def _style(column: str, values: pd.Series) -> str:
    """The CSS class of a column; numbers have none."""
    if column in LONG:
        return "long"
    return "" if pd.api.types.is_numeric_dtype(values) else "text"


def _heading(table: str, column: str) -> str:
    if table == "differing":  # names of runs
        return column
    if table.startswith("front") and (name := _objective(column)) in COLUMNS:
        return COLUMNS[name] + column.removeprefix(name).replace("_", " ")
    return column.replace("_", " ") + (" (%)" if column in PERCENT.get(table, ()) else "")


def _objective(column: str) -> str:
    """The objective of a column, which may be an end of its interval."""
    return column.removesuffix("_low").removesuffix("_high")


def _cell(table: str, column: str, value: Any, style: str, index: Any) -> Cell:
    is_button = table == "front" and column == "trial"
    return Cell(_text(table, column, value), style, int(index) if is_button else None)


def _text(table: str, column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unbounded" if value in (math.inf, -math.inf) else ""
    if table.startswith("front") and (name := _objective(column)) in COLUMNS:
        return cell(name, value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{100 * value:.1f}" if column in PERCENT.get(table, ()) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
