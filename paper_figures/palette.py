"""What the page and the printed figures share: each quantity's axis, and each precision's colour."""

from collections.abc import Iterable
from itertools import cycle

from ablate.config.precisions import TABLE

BLACK, GREY, BLUE, VERMILLION = (
    "#000000",
    "#888888",
    "#0072b2",
    "#d55e00",
)  # Okabe and Ito, Color Universal Design, 2008
GREEN, SKY, ORANGE, PURPLE = "#009e73", "#56b4e9", "#e69f00", "#cc79a7"
PRECISIONS = {str(name): precision.colour for name, precision in TABLE.items()}
OTHERS = (ORANGE, PURPLE, GREEN, SKY)  # for arms that are no precision


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each arm: that of its precision, else one that no other has, as long as there are any."""
    names = list(dict.fromkeys(names))
    taken = {PRECISIONS.get(name) for name in names}
    free = cycle([colour for colour in OTHERS if colour not in taken])
    return {name: PRECISIONS[name] if name in PRECISIONS else next(free) for name in names}
