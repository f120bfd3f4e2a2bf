"""What the report page and the printed figures share: each quantity's axis, and each precision's colour."""

from collections.abc import Iterable
from itertools import cycle
from typing import Any

from ablate.config.objectives import AXES, Axis
from ablate.config.precisions import TABLE

# Okabe and Ito, Color Universal Design, 2008
BLACK, GREY, BLUE, VERMILLION = "#000000", "#888888", "#0072b2", "#d55e00"
GREEN, SKY, ORANGE, PURPLE = "#009e73", "#56b4e9", "#e69f00", "#cc79a7"
PRECISIONS = {str(name): precision.colour for name, precision in TABLE.items()}
OTHERS = (ORANGE, PURPLE, GREEN, SKY)  # for arms that are no precision


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each arm.

    Args:
        names: Of the arms; repetitions do not matter.

    Returns:
        By name: the colour of its precision, else one that no other arm has, until these run out.
    """
    names = list(dict.fromkeys(names))
    taken = {PRECISIONS.get(name) for name in names}
    free = cycle([colour for colour in OTHERS if colour not in taken])
    return {name: PRECISIONS[name] if name in PRECISIONS else next(free) for name in names}


def axis_of(name: str) -> Axis:
    """The axis of an objective, or a plain one with the name as its label."""
    return AXES.get(name, Axis(name, name))


def is_logarithmic(axis: Axis, values: Any) -> bool:
    """Whether values (n,) can be drawn on a logarithmic axis and belong on one."""
    return axis.scale == "log" and len(values) > 0 and bool((values > 0).all())
