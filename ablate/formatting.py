"""How layers, sizes and times are said to people."""

import math
import re
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
    return (
        ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        + f"; activations {'/'.join(bits)} bit{beta}"
    )


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
    return " and ".join(
        f"{name} at {'least' if name == 'accuracy' else 'most'} {bound:,}" for name, bound in within.items()
    )


def size_class(size_bytes: int) -> str:
    """From a half to the whole of a power of two."""
    top = 2 ** max(11, math.ceil(math.log2(size_bytes)))
    return f"{size(top / 2)} to {size(top)}"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
