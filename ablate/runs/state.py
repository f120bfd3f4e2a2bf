"""What a run says of itself: how far it is, and how to go on."""

import math
import shlex
from typing import Any


def how_to_go_on(state: dict[str, Any]) -> str:
    """What becomes of an interrupted run's work, and the command that goes on with it."""
    begun, kept = len(state.get("unfinished", [])), "what is recorded is kept"
    if begun:
        fate = (
            "from the last validated epoch"
            if state.get("storage")
            else "from the start, for want of --storage"
        )
        kept += f", {begun} trial{'s' if begun > 1 else ''} under way will go on {fate}"
    options = "".join(
        f" --{name} {shlex.quote(state[name])}" for name in ("address", "storage") if state.get(name)
    )
    return f"{kept}; go on with `ablate resume {shlex.quote(state['run'])}{options}`"


def after(trained: dict[str, Any], of: int | None = None) -> str:
    """How far a trial's training has come: "epoch 2/9 on 1/3 of its images"."""
    one_in = trained.get("one_in", 1)  # absent from states that earlier versions wrote
    return (
        f"epoch {trained['epoch']}"
        + (f"/{of}" if of else "")
        + (f" on 1/{one_in} of its images" if one_in > 1 else "")
    )


def seconds_left(state: dict[str, Any]) -> float | None:
    """Of a run by its state, once an epoch has ended: by the share of all epochs that are done."""
    done = (
        state["done"]
        - state["before"]
        + sum(
            trial["epoch"] / trial.get("one_in", 1) / max(1, trial["epochs"] or math.inf)
            for trial in state["running"]
        )
    )
    if state["status"] != "running" or not done:
        return None
    return (state["heartbeat"] - state["started"]) * ((state["trials"] - state["before"]) / done - 1)
