"""What people see in the terminal: the live view of a study, and tables."""

import shlex
import time
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.analysis import bounds, pareto
from ablate.config.objectives import COLUMNS, Direction, cell
from ablate.formatting import duration, in_bounds, in_words, size
from ablate.runs.record import Record
from ablate.runs.state import after, seconds_left


class StudyView:
    """One live view on a terminal; on a pipe, a line whenever a trial ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.told, self.shown = 0, False
        self.best: dict[str, Record] = {}

    def __enter__(self) -> "StudyView":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, state: dict[str, Any], records: list[Record]) -> None:
        if not self.shown:
            self.console.print(
                f"After any interruption: ablate resume {shlex.quote(state['run'])}",
                soft_wrap=True,
                highlight=False,
            )
            if state["before"]:
                self.console.print(f"{state['before']} trials are recorded already.", highlight=False)
            self.shown = True
        fresh = records[self.told :]
        if self.live:
            for number, record in enumerate(fresh, self.told + 1):
                if record["status"] == "failed" and number > state["before"]:
                    self.live.console.print(line(record, number, state), highlight=False, soft_wrap=True)
            self.best = bounds.best_by_size([*self.best.values(), *fresh], state["within"])
            none = Text("No trial is within these bounds yet.") if state["within"] and not self.best else ""
            self.live.update(Group(progress(state), none, best_by_size(self.best)), refresh=True)
        else:
            for number, record in enumerate(fresh, self.told + 1):
                if number > state["before"]:
                    self.console.print(line(record, number, state), highlight=False, soft_wrap=True)
        self.told = len(records)


def progress(state: dict[str, Any]) -> Group:
    """Trials done, running, failed; time left; the dashboard's address; and each running trial."""
    failed = state["counts"]["failed"]
    head = f"{state['done']}/{state['trials']} trials done, {len(state['running'])} running, {failed} failed"
    head += f", {state['counts']['pruned']} stopped early" if state["counts"]["pruned"] else ""
    head += f", {state['waiting']} waiting for a node" if state["waiting"] else ""
    head += f", {state['deaths']} worker deaths" if state["deaths"] else ""
    lines = [f"{head} · {left(state)} · {state['status']}"]
    if state["status"] == "exhausted":
        bounded = "No further point was found within the bounds."  # a large space is not listed
        lines.append(bounded if state.get("within") else "Every point of the space has been tried.")
    if within := state.get("within"):
        beyond = state["out_of_bounds"]
        lines.append(
            f"Bounds: {in_bounds(within)}"
            + (f"; {beyond} proposals beyond them were not trained" if beyond else "")
        )
    if state["dashboard"] and state["running"]:
        lines.append(f"Ray dashboard {state['dashboard']} (if it asks for a token: `ray get-auth-token`)")
    for trial in state["running"]:
        seen = "" if trial["accuracy"] is None else f"  accuracy {trial['accuracy']:.1%}"
        seen += f"  attempt {trial['attempt']}" if trial["attempt"] > 1 else ""
        head = f"slot {trial['slot']}  {trial['trial_id']}  {trial['arm']:<16}"
        lines.append(f"  {head} {after(trial, trial['epochs'])}{seen}")
    return Group(*(Text(line) for line in lines))


def left(state: dict[str, Any]) -> str:
    """Time so far and, where it can be told, the time left."""
    so_far = f"{duration(state['spent'])} {'so far' if state['running'] else 'in all'}"  # by all its drivers
    seconds = seconds_left(state)
    return so_far if seconds is None else f"{so_far}, about {duration(seconds)} left"


def best_by_size(best: dict[str, Record]) -> Table:
    """The best accuracy within each size class."""
    table = Table("size class", "best accuracy", "trial", "layers", box=None, pad_edge=False)
    for name, record in best.items():
        table.add_row(name, f"{record['accuracy']:.1%}", record["trial_id"], in_words(record["spec"]))
    return table


def front(records: pd.DataFrame, objectives: dict[str, Direction], within: dict[str, float]) -> Group:
    """The Pareto front as a table, smallest last."""
    chosen = pareto.front_of(records, objectives, within)
    title = f"Pareto front: {len(chosen)} of {len(records)} trials"
    title += f", with {in_bounds(within)}" if within else ""
    title += "; no trial keeps these bounds" if within and not len(chosen) else ""
    table = Table(box=None, pad_edge=False)
    for name in ("trial", *(COLUMNS[o] for o in objectives)):
        table.add_column(name, justify="left" if name == "trial" else "right")
    table.add_column("layers")
    for _, record in chosen.iterrows():
        table.add_row(record["trial_id"], *(cell(o, record[o]) for o in objectives), in_words(record["spec"]))
    return Group(Text(title, style="italic"), table)


def latencies(path: Path) -> Table:
    """The front's latencies: as the search saw them, and as they are."""
    table = Table(
        "trial",
        "ms, sum of layers",
        "ms, measured whole",
        box=None,
        pad_edge=False,
        title="Latency at batch 1",
        title_justify="left",
    )
    for _, row in pd.read_csv(path, dtype={"trial_id": str}).iterrows():
        table.add_row(row["trial_id"], f"{row['latency_ms_summed']:.2f}", f"{row['latency_ms_measured']:.2f}")
    return table


def confirmed(path: Path) -> Table:
    """Members of the front: what the search saw of them, and what further seeds say on the test set."""
    title = "Confirmed: the search chose by validation with one seed; these are means over others, with 95 % intervals"
    columns = ("trial", "search", "validation", "test", "seeds")
    table = Table(*columns, box=None, pad_edge=False, title=title, title_justify="left")
    for row in pd.read_csv(path, dtype={"trial_id": str}).to_dict("records"):
        means = [_interval(row, name) for name in ("accuracy", "test_accuracy")]
        off = "" if row["on_front"] else " (no longer on the front)"
        table.add_row(row["trial_id"] + off, f"{row['search_accuracy']:.1%}", *means, str(row["n"]))
    return table


def sensitivities(path: Path) -> Table:
    """What each layer group costs in accuracy: alone, and as the last to follow all others."""
    costs = pd.read_csv(path, keep_default_na=False, na_values={"accuracy_cost": [""], "accuracy_high": [""]})
    kinds = list(dict.fromkeys(costs["precision"]))
    heads = [f"{kind}, {how}" for how in ("alone", "last") for kind in kinds]
    title = "Cost in points of validation accuracy; alone: all else full, last: all else low"
    table = Table("layer group", *heads, box=None, pad_edge=False, title=title, title_justify="left")
    points = {
        (row["how"], row["precision"], row["group"]): f"{100 * row['accuracy_cost']:.1f}"
        + (
            ""
            if pd.isna(row["accuracy_high"])
            else f" ±{100 * (row['accuracy_high'] - row['accuracy_cost']):.1f}"
        )
        for row in costs.dropna(subset="accuracy_cost").to_dict("records")
    }
    whole = [points.get(("all", kind, ""), "-") for kind in kinds]
    for group in dict.fromkeys(costs["group"]):
        if group:
            table.add_row(
                group, *(points.get((how, kind, group), "-") for how in ("alone", "last") for kind in kinds)
            )
    table.add_row("all of them", *whole, *([""] * len(kinds)))
    return table


def _interval(row: dict[str, Any], name: str) -> str:
    if not row["n"]:
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.1%}" + ("" if pd.isna(low) else f" ({low:.1%} to {high:.1%})")


def bench(rows: list[dict[str, Any]]) -> Table:
    """A packed model beside its twins."""
    batches = [key.rpartition(" ")[2] for key in rows[0] if key.startswith("latency_ms")]
    title = f"medians on {rows[0]['device']}, {rows[0]['threads']} threads; n in brackets"
    table = Table(
        "model",
        "file",
        "in memory",
        *(f"ms at batch {b}" for b in batches),
        box=None,
        pad_edge=False,
        title=title,
    )
    for row in rows:
        times = [f"{row[f'latency_ms at batch {b}']:.2f} ({row[f'n at batch {b}']})" for b in batches]
        table.add_row(row["model"], size(row["size_bytes"]), size(row["memory_bytes"]), *times)
    return table


def line(record: Record, number: int, state: dict[str, Any]) -> str:
    head = f"[{number}/{state['trials']}] {record['trial_id']}"
    if record["status"] != "complete":
        return f"{head} {record['status']}: {record['error']}"
    took = duration(time.time() - state["started"])
    return f"{head} accuracy {record['accuracy']:.1%}, {size(record['size_bytes'])}, {in_words(record['spec'])} · {took}"
