"""How layers, sizes and times are said to people."""

import math
import re
import shlex
from collections import Counter
from typing import Any


def in_words(spec: dict[str, Any]) -> str:
    """A trial's layers in a few words: how many layer groups of each kind, and the activation bits."""
    layers = list(spec["layers"].values())
    if not layers:
        return "all full"
    kinds = Counter(layer["weights"] for layer in layers)
    bits = sorted({str(layer["activation_bits"]) for layer in layers})
    multipliers = sorted({layer["beta_multiplier"] for layer in layers} - {1.0})
    beta = f"; beta x {', '.join(f'{m:.3g}' for m in multipliers)}" if multipliers else ""
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) + f"; activations {'/'.join(bits)} bit{beta}"


def natural(name: str) -> list[Any]:
    """The key that sorts block2 before block10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


def size(size_bytes: float) -> str:
    return f"{size_bytes / 2**10:,.0f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"


def count(number: float | None) -> str:
    """How many points, of which there may be more than a float holds; None: infinitely many."""
    if number is None:
        return "infinitely many"
    return f"{number:,.0f}" if number < 10**15 else f"about 10^{math.log10(number):.0f}"


def in_bounds(within: dict[str, float]) -> str:
    """Bounds in a few words: "size_bytes at most 1,000,000 and accuracy at least 0.5"."""
    return " and ".join(f"{name} at {'least' if name == 'accuracy' else 'most'} {bound:,}" for name, bound in within.items())


def size_class(size_bytes: int) -> str:
    """From a half to the whole of a power of two."""
    top = 2 ** max(11, math.ceil(math.log2(size_bytes)))
    return f"{size(top / 2)} to {size(top)}"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def how_to_go_on(state: dict[str, Any]) -> str:
    """What becomes of an interrupted run's work, and the command that goes on with it."""
    begun, kept = len(state.get("unfinished", [])), "what is recorded is kept"
    if begun:
        fate = "from the last validated epoch" if state.get("storage") else "from the start, for want of --storage"
        kept += f", {begun} trial{'s' if begun > 1 else ''} under way will go on {fate}"
    options = "".join(f" --{name} {shlex.quote(state[name])}" for name in ("address", "storage") if state.get(name))
    return f"{kept}; go on with `ablate resume {shlex.quote(state['run'])}{options}`"


def after(trained: dict[str, Any], of: int | None = None) -> str:
    """How far a trial's training has come: "epoch 2/9 on 1/3 of its images"."""
    one_in = trained.get("one_in", 1)  # absent from states that earlier versions wrote
    return f"epoch {trained['epoch']}" + (f"/{of}" if of else "") + (f" on 1/{one_in} of its images" if one_in > 1 else "")


def seconds_left(state: dict[str, Any]) -> float | None:
    """Of a run by its state, once an epoch has ended: by the share of all epochs that are done."""
    done = (
        state["done"]
        - state["before"]
        + sum(trial["epoch"] / trial.get("one_in", 1) / max(1, trial["epochs"] or math.inf) for trial in state["running"])
    )
    if state["status"] != "running" or not done:
        return None
    return (state["heartbeat"] - state["started"]) * ((state["trials"] - state["before"]) / done - 1)
