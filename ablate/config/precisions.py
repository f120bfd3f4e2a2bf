"""Weight formats: one row each, from which all else about them is read."""

import math
from dataclasses import dataclass
from typing import Literal

Weights = Literal["full", "binary", "ternary", "int4", "int8"]


@dataclass(frozen=True)
class Precision:
    """How weights are held.

    Args:
        bits: A weight's information, as bit operations count it.
        top: The largest level; the lowest is -top. None for weights in floating point.
        per_byte: Weights in a byte of a packed file; None for those that are not packed.
        has_beta: Whether beta scales the weights. Otherwise the largest weight of each output channel does,
            and no weight lies outside the range of the levels.
        colour: In figures and on pages (Okabe and Ito, Color Universal Design, 2008).
    """

    bits: float
    top: int | None
    per_byte: int | None
    has_beta: bool
    colour: str


TABLE: dict[Weights, Precision] = {  # from the least bits to the most
    "binary": Precision(1.0, 1, 8, True, "#d55e00"),
    "ternary": Precision(math.log2(3), 1, 5, True, "#0072b2"),
    "int4": Precision(4.0, 7, 2, False, "#009e73"),
    "int8": Precision(8.0, 127, 1, False, "#56b4e9"),
    "full": Precision(32.0, None, None, False, "#000000"),
}
WEIGHTS: tuple[str, ...] = tuple(TABLE)
TOP: dict[str, int] = {name: row.top for name, row in TABLE.items() if row.top is not None}
PER_BYTE: dict[str, int] = {name: row.per_byte for name, row in TABLE.items() if row.per_byte is not None}
WEIGHT_BITS: dict[str, float] = {name: row.bits for name, row in TABLE.items() if row.per_byte is not None}
