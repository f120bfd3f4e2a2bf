"""Tables of results, as the terminal shows them."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ablate.analysis import pareto
from ablate.cli.console import plain_table
from ablate.config.objectives import COLUMNS, Direction, cell
from ablate.formatting import describe_bounds, describe_layers, format_bytes
from ablate.labels import one_line
from ablate.reporting.csv_tables import read_csv
from ablate.runs.record import Record

CONFIRMED = [name + end for name in ("accuracy", "test_accuracy") for end in ("", "_low", "_high")]


def best_by_size(best: dict[str, Record]) -> Table:
    """Tabulate the most accurate trial of each size class.

    Args:
        best: The record of that trial, by the name of the size class.
    """
    table = plain_table("size class", "best accuracy", "trial", "layers")
    for name, record in best.items():
        accuracy = f"{record['accuracy']:.1%}"
        table.add_row(name, accuracy, record["trial_id"], describe_layers(record["spec"]))
    return table


def front(records: pd.DataFrame, objectives: dict[str, Direction], within: dict[str, float]) -> Group:
    """Tabulate the Pareto front.

    Args:
        records: The trials of a search, one row each.
        objectives: The direction of each objective.
        within: Bounds that members of the front must keep.
    """
    members = pareto.front_of(records, objectives, within)
    title = f"Pareto front: {len(members)} of {len(records)} trials"
    title += f", with {describe_bounds(within)}" if within else ""
    title += "; no trial keeps these bounds" if within and not len(members) else ""
    table = plain_table("trial")
    for objective in objectives:
        table.add_column(COLUMNS[objective], justify="right")
    table.add_column("layers")
    for _, record in members.iterrows():
        values = (cell(objective, record[objective]) for objective in objectives)
        table.add_row(record["trial_id"], *values, describe_layers(record["spec"]))
    return Group(Text(title, style="italic"), table)


def latencies(path: Path) -> Table:
    """Tabulate the latencies of the front: summed, as the search used them, and measured.

    Args:
        path: A run's `tables/latency.csv`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, cut off or no such table.
    """
    heads = {"summed": "ms, summed", "measured": "ms, whole model", "exact": "ms, with exact=True"}
    numbers = ("latency_ms_summed", "latency_ms_measured")
    rows = read_csv(path, texts=("trial_id",), numbers=numbers)
    heads = {f"latency_ms_{name}": head for name, head in heads.items() if f"latency_ms_{name}" in rows}
    table = plain_table("trial", *heads.values(), title="Latency at batch size 1")
    for _, row in rows.iterrows():
        table.add_row(row["trial_id"], *(f"{row[name]:.2f}" for name in heads))
    return table


def confirmed(path: Path) -> Table:
    """Tabulate the front's accuracies in the search beside those on further seeds.

    Args:
        path: A run's `tables/confirmed.csv`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, cut off or no such table.
    """
    rows = read_csv(path, texts=("trial_id", "on_front"), numbers=(*CONFIRMED, "search_accuracy", "n"))
    title = (
        "Confirmed: one seed and validation images in the search; means over further seeds, 95 % intervals"
        + _simultaneous(rows, "means")
    )
    table = plain_table("trial", "search", "validation", "test", "seeds", title=title)
    for row in rows.to_dict("records"):
        means = [_interval(row, name) for name in ("accuracy", "test_accuracy")]
        off = "" if row["on_front"] == "True" else " (no longer on the front)"
        table.add_row(row["trial_id"] + off, f"{row['search_accuracy']:.1%}", *means, f"{row['n']:.0f}")
    return table


def sensitivities(path: Path) -> Table:
    """Tabulate what each layer group costs in accuracy: quantized alone, and last, after all others.

    Args:
        path: A run's `tables/sensitivity.csv`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, cut off or no such table.
    """
    numbers = ("accuracy_cost", "accuracy_high")
    costs = read_csv(path, texts=("how", "precision", "group"), numbers=numbers)
    points = {
        (row["how"], row["precision"], row["group"]): _cost(row)
        for row in costs.dropna(subset="accuracy_cost").to_dict("records")
    }
    precisions = list(dict.fromkeys(costs["precision"]))
    columns = [(how, precision) for how in ("alone", "last") for precision in precisions]
    title = "Cost in points of validation accuracy; alone: all others full, last: all others quantized"
    title += f"; 95 % intervals{_simultaneous(costs, 'contrasts')}"
    headings = (f"{precision}, {how}" for how, precision in columns)
    table = plain_table("layer group", *headings, title=title)
    for group in dict.fromkeys(costs["group"]):
        if group:
            table.add_row(one_line(group), *(points.get((*column, group), "-") for column in columns))
    whole = [points.get(("all", precision, ""), "-") for precision in precisions]
    table.add_row("all of them", *whole, *([""] * len(precisions)))
    return table


def bench(rows: list[dict[str, Any]]) -> Table:
    """Tabulate the size, memory and latency of a packed model beside its full-precision twins.

    Args:
        rows: As `profiling.bench.bench` returns them.
    """
    batches = [key.rpartition(" ")[2] for key in rows[0] if key.startswith("latency_ms")]
    threads = rows[0]["threads"]
    where = f"{rows[0]['device']}, {threads} thread{'s' * (threads > 1)}"
    title = f"Median latencies on {where}; 95th percentile and number of calls in brackets"
    table = plain_table("model", "file", "in memory", *(f"ms at batch {b}" for b in batches), title=title)
    for row in rows:
        times = [
            f"{row[f'latency_ms {at}']:.2f} ({row[f'p95_ms {at}']:.2f}, {row[f'n {at}']})"
            for at in (f"at batch {b}" for b in batches)
        ]
        sizes = (row["size_bytes"], row["memory_bytes"])
        table.add_row(row["model"], *("-" if size is None else format_bytes(size) for size in sizes), *times)
    return table


def _cost(row: dict[str, Any]) -> str:
    """A cost in points and, with two seeds or more, the half-width of its interval."""
    cost = f"{100 * row['accuracy_cost']:.1f}"
    if pd.isna(row["accuracy_high"]):
        return cost
    return f"{cost} ±{100 * (row['accuracy_high'] - row['accuracy_cost']):.1f}"


def _simultaneous(rows: pd.DataFrame, family: str) -> str:
    """Over how many intervals 95 % hold; "" for a table of an older version, or without intervals."""
    size = int(rows[family].max()) if family in rows and len(rows) else 0
    return f", simultaneous over {size} {family}" if size else ""


def _interval(row: dict[str, Any], name: str) -> str:
    if not row["n"]:
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.1%}" + ("" if pd.isna(low) else f" ({low:.1%} to {high:.1%})")
