"""The progress of a study, live on a terminal or line by line on a pipe."""

import logging
import shlex
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ablate.analysis import bounds
from ablate.cli import result_tables
from ablate.formatting import describe_bounds, describe_layers, format_bytes, format_duration
from ablate.labels import one_line
from ablate.runs.record import Record
from ablate.runs.state import RunningRow, State, at_least, progress_now, progress_of, seconds_left

log = logging.getLogger(__name__)


class StudyView:
    """Shows a study while it runs: a live view on a terminal, a line per finished trial on a pipe.

    The driver calls the view with the run's state and all records so far.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.started = False
        self.n_shown = 0
        self.best: dict[str, Record] = {}

    def __enter__(self) -> "StudyView":
        if self.live:
            self._draw(self.live.start)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self._draw(self.live.stop)  # refreshes it, too

    def __call__(self, state: State, records: list[Record]) -> None:
        """Show the state, and the records that were added since the last call."""
        if not self.started:
            self._print_head(state)
            self.started = True
        fresh = records[self.n_shown :]
        for number, record in enumerate(fresh, self.n_shown + 1):
            # On a terminal the live view has the rest; failures are printed so that they stay.
            if number > state["before"] and (not self.live or record["status"] == "failed"):
                self._print(record_line(record, number, state))
        self.n_shown = len(records)
        if self.live:
            self.best = bounds.best_by_size([*self.best.values(), *fresh], state["within"])
            none_within = state["within"] and not self.best
            notice = Text("No trial is within these bounds yet.") if none_within else ""
            table = result_tables.best_by_size(self.best)
            self.live.update(Group(progress(state), notice, table), refresh=True)

    def _draw(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception as error:  # what is shown never ends what runs
            log.warning("The live view failed: %s: %s", type(error).__name__, error)
            self.live = None

    def _print_head(self, state: State) -> None:
        self._print(f"If this is interrupted, continue with: ablate resume {shlex.quote(state['run'])}")
        if state["before"]:
            self._print(f"{state['before']} trials are already recorded.")

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)


def progress(state: State) -> Group:
    """Summarise a run's state.

    Args:
        state: As `state.json` holds it, with `done` and `counts`.

    Returns:
        Trials by status, the time left, the bounds, the dashboard's address and each running trial.
    """
    counts = state["counts"]
    parts = [
        f"{state['done']}/{at_least(state)}{state['trials']} trials done",
        f"{len(state['running'])} running",
        f"{counts['failed']} failed",
    ]
    parts += [f"{counts['pruned']} stopped early"] if counts["pruned"] else []
    parts += [f"{state['waiting']} waiting for a node"] if state["waiting"] else []
    parts += [f"{state['deaths']} worker deaths"] if state["deaths"] else []
    lines = [f"{', '.join(parts)} · {time_left(state)} · {state['status']}"]
    within = state.get("within")
    if state["status"] == "exhausted":
        bounded = "No further point was found within the bounds."  # a large space is not enumerated
        lines.append(bounded if within else "Every point of the space has been tried.")
    if within:
        n_out = state["out_of_bounds"]
        skipped = f"; {n_out} proposals out of bounds were not trained" if n_out else ""
        lines.append(f"Bounds: {describe_bounds(within)}{skipped}")
    if state["dashboard"] and state["running"]:
        lines.append(f"Ray dashboard: {state['dashboard']} (`ray get-auth-token` prints its token)")
    lines += map(_running_line, state["running"])
    return Group(*map(Text, lines))


def time_left(state: State) -> str:
    """The time that all drivers of a run have spent and, where it can be estimated, the time left."""
    spent = f"{format_duration(state['spent'])} {'so far' if state['running'] else 'in all'}"
    seconds = seconds_left(state)
    return spent if seconds is None else f"{spent}, about {format_duration(seconds)} left"


def record_line(record: Record, number: int, state: State) -> str:
    """One line about a finished trial.

    Args:
        record: The trial's record.
        number: Its place in the ledger, from 1.
        state: The run's state.
    """
    head = f"[{number}/{at_least(state)}{state['trials']}] {record['trial_id']}"
    if record["status"] != "complete":
        return one_line(f"{head} {record['status']}: {record['error']}")
    outcome = f"accuracy {record['accuracy']:.1%}, {format_bytes(record['size_bytes'] or 0)}"
    return f"{head} {outcome}, {describe_layers(record['spec'])} · {format_duration(state['elapsed'])}"


def _running_line(trial: RunningRow) -> str:
    accuracy = "" if trial["accuracy"] is None else f"  accuracy {trial['accuracy']:.1%}"
    attempt = f"  attempt {trial['attempt']}" if trial["attempt"] > 1 else ""
    head = f"slot {trial['slot']}  {trial['trial_id']}  {trial['arm']:<16}"
    now = f"  {text}" if (text := progress_now(trial)) else ""
    return f"  {head} {progress_of(trial, trial['epochs'])}{accuracy}{attempt}{now}"
