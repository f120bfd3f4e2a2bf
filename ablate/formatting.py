"""Layers, bounds, sizes and durations as text for people."""

import math
import re
from collections import Counter
from typing import Any


def describe_layers(spec: dict[str, Any]) -> str:
    """Summarise the quantized layers of a trial.

    Args:
        spec: The `spec` of a record; its `layers` map each quantized layer group to its LayerSpec. Without a
            `recipe` nothing is said of attention.

    Returns:
        The number of layer groups of each precision, the activation bits, what shares a scale other than a
        token, and the bits of the attention products, such as "3 binary, 2 ternary; activations 4/8 bit,
        static scale; attention products 8 bit".
    """
    layers, attention = list(spec["layers"].values()), spec.get("recipe", {}).get("attention_bits")
    products = f"; attention products {attention} bit" if attention else ""
    if not layers:
        return f"all full{products}"
    kinds = Counter(layer["weights"] for layer in layers)
    weights = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    bits = sorted({str(layer["activation_bits"]) for layer in layers})
    scales = sorted({layer.get("activation_scale", "token") for layer in layers})
    scale = "" if scales == ["token"] else f", {'/'.join(scales)} scale"
    multipliers = sorted({layer["beta_multiplier"] for layer in layers} - {1.0})
    beta = f"; beta x {', '.join(f'{m:.3g}' for m in multipliers)}" if multipliers else ""
    return f"{weights}; activations {'/'.join(bits)} bit{scale}{beta}{products}"


def describe_bounds(within: dict[str, float]) -> str:
    """Bounds on objectives as text: "size_bytes at most 1,000,000 and accuracy at least 0.5"."""
    return " and ".join(
        f"{name} at {'least' if name == 'accuracy' else 'most'} {bound:,.15g}"
        for name, bound in within.items()
    )


def images_of(test: bool | str) -> str:
    """What an accuracy is measured on, in a sentence: "the test images", "half A of the test images", ...

    Args:
        test: As in TrialSpec; False means the validation images.
    """
    if isinstance(test, str):
        return f"half {test} of the test images"
    return "the test images" if test else "the validation images"


def split_name(test: bool | str) -> str:
    """The same in a column: "validation", "test", "test, half A", "test, half B"."""
    if isinstance(test, str):
        return f"test, half {test}"
    return "test" if test else "validation"


def natural_sort_key(name: str) -> list[Any]:
    """A sort key that puts "block2" before "block10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


def format_bytes(size_bytes: float) -> str:
    """A size in KiB below 1 MiB, else in MiB."""
    return f"{size_bytes / 2**10:,.0f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"


def format_count(number: float | None) -> str:
    """A number of points: exact below 10^15, else as a power of ten. None means infinitely many.

    The number may be an integer that no float can hold.
    """
    if number is None:
        return "infinitely many"
    return f"{number:,.0f}" if number < 10**15 else f"about 10^{math.log10(number):.0f}"


def size_class(size_bytes: int) -> str:
    """The size class of a packed model: from half of a power of two up to that power."""
    top = 2 ** max(11, math.ceil(math.log2(size_bytes)))
    return f"{format_bytes(top / 2)} to {format_bytes(top)}"


def format_duration(seconds: float) -> str:
    """A duration in hours and minutes or, below an hour, in minutes and seconds."""
    minutes, seconds = divmod(round(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
