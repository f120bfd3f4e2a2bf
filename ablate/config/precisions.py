"""Weight formats: their levels, bits, and values per byte of a packed file."""

import math
from typing import Literal

TOP = {"binary": 1, "ternary": 1, "int4": 7, "int8": 127}  # the largest weight level; the lowest is -TOP
PER_BYTE = {"binary": 8, "ternary": 5, "int4": 2, "int8": 1}
WEIGHT_BITS = {"binary": 1.0, "ternary": math.log2(3), "int4": 4.0, "int8": 8.0}
WEIGHTS = ("binary", "ternary", "int4", "int8", "full")  # from the least bits to the most
Weights = Literal["full", "binary", "ternary", "int4", "int8"]
