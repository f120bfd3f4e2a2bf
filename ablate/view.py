"""What people see in the terminal: the live view of a study, and tables."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.analysis import pareto
from ablate.ledger import FIELDS, Record
from ablate.spec import OBJECTIVES

COLUMNS = {
    "accuracy": "accuracy",
    "size_bytes": "size",
    "bitops": "bit operations",
    "latency_ms": "latency (sum of layers)",
    "loss": "loss (nats)",
}
COLUMNS |= {"images": "images", "train_seconds": "training"}


class StudyView:
    """One live view on a terminal; on a pipe, a line whenever a trial ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.told = 0

    def __enter__(self) -> "StudyView":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, state: dict[str, Any], records: list[Record]) -> None:
        if self.live:
            table = pd.DataFrame(records, columns=list(FIELDS))
            complete = (table["status"] == "complete").any()
            self.live.update(Group(progress(state, table), *([best_by_size(table)] if complete else [])), refresh=True)
            return
        for record in records[max(self.told, state["before"]) :]:
            self.console.print(line(record, state), highlight=False, soft_wrap=True)
        self.told = len(records)


def progress(state: dict[str, Any], records: pd.DataFrame) -> Group:
    """Trials done, running, failed; time left; the dashboard's address; and each running trial."""
    failed = int((records["status"] == "failed").sum())
    head = f"{len(records)}/{state['trials']} trials done, {len(state['running'])} running, {failed} failed"
    lines = [f"{head} · {left(state, records)} · {state['status']}"]
    if state["status"] == "exhausted":
        lines.append("Every point of the space has been tried.")
    if state["dashboard"] and state["running"]:
        lines.append(f"Ray dashboard {state['dashboard']}")
    for trial in state["running"]:
        seen = "" if trial["accuracy"] is None else f"  accuracy {trial['accuracy']:.1%}"
        lines.append(f"  {trial['trial_id']}  {trial['arm']:<16} epoch {trial['epoch']}/{trial['epochs']}{seen}")
    return Group(*(Text(line) for line in lines))


def left(state: dict[str, Any], records: pd.DataFrame) -> str:
    """Time so far and, once an epoch has ended, the time left: by the share of all epochs that are done."""
    spent = state["heartbeat"] - state["started"]
    so_far = f"{duration(spent)} {'so far' if state['running'] else 'in all'}"
    done = len(records) - state["before"] + sum(trial["epoch"] / max(1, trial["epochs"]) for trial in state["running"])
    if state["status"] != "running" or not done:
        return so_far
    return f"{so_far}, about {duration(spent * ((state['trials'] - state['before']) / done - 1))} left"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def best_by_size(records: pd.DataFrame) -> Table:
    """The best accuracy within each size class, from a half to the whole of a power of two."""
    table = Table("size class", "best accuracy", "trial", "layers", box=None, pad_edge=False)
    complete = records[records["status"] == "complete"]
    top = 2**17
    while len(complete) and top < 2 * complete["size_bytes"].max():
        inside = complete[(complete["size_bytes"] <= top) & (complete["size_bytes"] > top / 2)]
        if len(inside):
            best = inside.loc[inside["accuracy"].astype(float).idxmax()]
            table.add_row(f"{size(top / 2)} to {size(top)}", f"{best['accuracy']:.1%}", best["trial_id"], summary(best["spec"]))
        top *= 2
    return table


def front(records: pd.DataFrame, objectives: tuple[str, ...]) -> Table:
    """The Pareto front as a table, smallest last."""
    chosen = pareto.front_of(records, {name: OBJECTIVES[name] for name in objectives})
    table = Table(title=f"Pareto front: {len(chosen)} of {len(records)} trials", title_justify="left", box=None, pad_edge=False)
    for name in ("trial", *(COLUMNS[o] for o in objectives)):
        table.add_column(name, justify="left" if name == "trial" else "right")
    table.add_column("layers")
    for _, record in chosen.iterrows():
        table.add_row(record["trial_id"], *(cell(o, record[o]) for o in objectives), summary(record["spec"]))
    return table


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
    for _, row in pd.read_csv(path).iterrows():
        table.add_row(row["trial_id"], f"{row['latency_ms_summed']:.2f}", f"{row['latency_ms_measured']:.2f}")
    return table


def bench(rows: list[dict[str, Any]]) -> Table:
    """A packed model beside its twins."""
    batches = [key.rpartition(" ")[2] for key in rows[0] if key.startswith("latency_ms")]
    title = f"medians on {rows[0]['device']}, {rows[0]['threads']} threads; n in brackets"
    table = Table("model", "file", "in memory", *(f"ms at batch {b}" for b in batches), box=None, pad_edge=False, title=title)
    for row in rows:
        times = [f"{row[f'latency_ms at batch {b}']:.2f} ({row[f'n at batch {b}']})" for b in batches]
        table.add_row(row["model"], size(row["size_bytes"]), size(row["memory_bytes"]), *times)
    return table


def cell(objective: str, value: float) -> str:
    if objective == "size_bytes":
        return size(value)
    written = {"accuracy": f"{value:.1%}", "bitops": f"{value / 1e9:,.1f} G", "loss": f"{value:.3f}", "images": f"{value:,.0f}"}
    written["latency_ms"] = f"{value:.2f} ms"
    return written.get(objective) or duration(value)


def size(size_bytes: float) -> str:
    return f"{size_bytes / 2**10:,.0f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"


def summary(spec: dict[str, Any]) -> str:
    """A trial's layers in a few words: how many layer groups of each kind, and the activation bits."""
    layers = list(spec["layers"].values())
    if not layers:
        return "all full"
    kinds = pd.Series([layer["weights"] for layer in layers]).value_counts()
    bits = sorted({str(layer["activation_bits"]) for layer in layers})
    multipliers = sorted({layer["beta_multiplier"] for layer in layers} - {1.0})
    beta = f"; beta x {', '.join(f'{m:g}' for m in multipliers)}" if multipliers else ""
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) + f"; activations {'/'.join(bits)} bit{beta}"


def line(record: Record, state: dict[str, Any]) -> str:
    head = f"[{state['done']}/{state['trials']}] {record['trial_id']}"
    if record["status"] != "complete":
        return f"{head} {record['status']}: {record['error']}"
    took = duration(time.time() - state["started"])
    return f"{head} accuracy {record['accuracy']:.1%}, {size(record['size_bytes'])}, {summary(record['spec'])} · {took}"
