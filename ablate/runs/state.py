"""What a run's driver says of itself in state.json: how far the run is, and how to go on."""

import math
import shlex
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from ablate.formatting import format_duration
from ablate.runs.progress import EpochProgress

ENDED = ("finished", "exhausted", "interrupted", "failed")  # a driver's last status


class RunningRow(TypedDict):
    """A trial that a worker trains now."""

    trial_id: str
    arm: str
    layers: str  # in words
    slot: int
    attempt: int  # 1, and one more after each death of its worker
    epoch: int  # the last one that was validated
    epochs: int | None  # None where they depend on the number of images
    one_in: int  # it trains on one `one_in`-th of its images
    accuracy: float | None
    now: NotRequired[EpochProgress | None]  # within the epoch; None between two, or where it is short


class State(TypedDict, total=False):
    """A driver's last sign of life. Older versions wrote fewer fields, and a run may have no state at all."""

    status: str
    reason: str  # why the study failed, "" where it did not
    host: str
    pid: int
    run: str  # its folder
    started: float  # seconds since 1970, as the heartbeat
    heartbeat: float
    elapsed: float  # seconds since the driver began, by a monotonic clock
    spent: float  # seconds, by all drivers of the run
    before: int  # records when the driver began
    done: int  # records now
    trials: int  # records when the run is over
    may_grow: bool  # whether these are the least, since a design may extend the grids of what it tunes
    counts: dict[str, int]  # records by status
    running: list[RunningRow]
    unfinished: list[dict[str, Any]]  # specs of the trials that have begun and have no record
    waiting: int  # trials that wait for a node
    deaths: int  # of workers
    out_of_bounds: int
    within: dict[str, float]
    concurrency: int | None
    dashboard: str
    address: str | None
    storage: str | None


# What readers rely on: what stands for a field that another version did not write. `counts` is never missing.
EMPTY: dict[str, Any] = {
    **dict.fromkeys(("status", "host", "run", "dashboard"), ""),
    **dict.fromkeys(("pid", "before", "done", "trials", "waiting", "deaths", "out_of_bounds"), 0),
    **dict.fromkeys(("started", "heartbeat", "spent"), 0.0),
    "running": [],
    "within": {},
}


def state_of(fields: Any) -> State:
    """Return what a state.json holds as a state.

    Args:
        fields: Of the file.

    Returns:
        The state with all fields of EMPTY; an empty one where it is none, or where a field is of another
        kind, as another version may have written it.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("counts"), dict):
        return State()
    state = {**EMPTY, **fields}
    kinds = {name: float | int if isinstance(empty, float) else type(empty) for name, empty in EMPTY.items()}
    is_ours = all(isinstance(state[name], kind) for name, kind in kinds.items())
    return cast(State, state) if is_ours else State()


def at_least(state: State) -> str:
    """Return what to say before a run's number of trials: "at least " where its design may grow, else ""."""
    return "at least " if state.get("may_grow") else ""


def how_to_go_on(state: State) -> str:
    """Return what becomes of an interrupted run's work, and the command that continues it."""
    begun, kept = len(state.get("unfinished", [])), "what is recorded is kept"
    if begun:
        start = "their last validated epoch" if begun > 1 else "its last validated epoch"
        start = start if state.get("storage") else "the start, because there is no --storage"
        kept += f", {begun} unfinished trial{'s' if begun > 1 else ''} will go on from {start}"
    given = {"address": state.get("address"), "storage": state.get("storage")}
    options = "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)
    return f"{kept}; go on with `ablate resume {shlex.quote(state['run'])}{options}`"


def progress_of(trained: Mapping[str, Any], epochs: int | None = None) -> str:
    """Return how far a trial's training has come, as in "epoch 2/9 on 1/3 of its images".

    Args:
        trained: A row of a record's curve or rungs, a running trial, or the state of a checkpoint. Earlier
            versions wrote no `one_in`.
        epochs: Of the whole training.
    """
    divisor = trained.get("one_in", 1)
    on = f" on 1/{divisor} of its images" if divisor > 1 else ""
    return f"epoch {trained['epoch']}" + (f"/{epochs}" if epochs else "") + on


def progress_now(trial: RunningRow) -> str:
    """Return how far a running trial is within its epoch, or "" where that is unknown."""
    if not (now := trial.get("now")):
        return ""
    what = f"preparing, epoch {now['epoch']}" if now["prepares"] else f"epoch {now['epoch']}"
    share = f"{now['images'] / now['images_in_all']:.0%}"
    left = f"about {format_duration(now['seconds_left'])} left"
    return f"{what}: {share}, {now['images_per_second']:,.0f} images/s, {left}"


def seconds_left(state: State) -> float | None:
    """Return the seconds until a run ends, extrapolated from the share of its epochs that is done.

    Returns:
        None before the first epoch has ended, and for a run that has ended.
    """
    running = sum(t["epoch"] / t.get("one_in", 1) / max(1, t["epochs"] or math.inf) for t in state["running"])
    done = state["done"] - state["before"] + running
    if state["status"] != "running" or not done:
        return None
    elapsed = state.get("elapsed", state["heartbeat"] - state["started"])
    return elapsed * ((state["trials"] - state["before"]) / done - 1)
