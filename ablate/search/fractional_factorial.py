"""Regular fractions of factorial designs: few points that keep the effects of single factors apart.

2^(k-p) designs (Box & Hunter, Technometrics 3, 1961): the levels of the basic factors run through all
combinations, and each further factor has the parity of some of them. These are chosen factor by factor, for
the fewest words of length 3 and then of length 4. A word of length 3 aliases a single effect with a pair's,
one of length 4 two pairs. Not by `pydoe` (1.6): its points are others, and its exhaustive search does not end
for the 19 layer groups of a ViT.
"""

import numpy as np
from numpy.typing import NDArray

from ablate.errors import BadInput

APART = {  # resolution -> what is kept apart
    3: "the effect of a factor looks like that of no other factor, but may look like that of a pair",
    4: "the effect of a factor looks like that of no other factor and of no pair; pairs may look like pairs",
    5: "the effects of factors and of pairs all stay apart",
}


def fraction(factors: int, runs: int) -> tuple[NDArray[np.bool_], int]:
    """A regular fraction of a factorial design of two-level factors.

    Args:
        factors: How many factors there are.
        runs: How many of the 2^factors combinations to take.

    Returns:
        The levels (runs, factors), of which every pair of columns is orthogonal, and the design's resolution:
        3, 4, or 5 for 5 and more; see `APART`.

    Raises:
        BadInput: `runs` is no power of two, not above the number of factors, or above 2^factors.
    """
    if runs.bit_count() != 1 or not factors < runs <= 2**factors:
        rule = f"points must be a power of two above the {factors} factors and at most 2^{factors}"
        raise BadInput(f"{rule}, but got {runs}; one such is {2 ** factors.bit_length()}")
    every = [*range(1, runs)]
    odd = [mask for mask in every if mask.bit_count() % 2]  # with these alone the resolution is 4 at least
    sizes = range(2, max(3, runs.bit_length()))
    designs = [
        _columns(factors, runs, masks, size)
        for masks in (every, odd)
        for size in sizes
        if len(masks) >= factors
    ]
    columns, (threes, fours) = min(designs, key=lambda design: design[1])
    parity = [[(run & column).bit_count() % 2 == 1 for column in columns] for run in range(runs)]
    return np.array(parity), 3 if threes else 4 if fours else 5


def _columns(factors: int, runs: int, masks: list[int], size: int) -> tuple[list[int], tuple[int, int]]:
    """A design's columns, each the bit mask of its basic factors; and how many words have length 3 and 4.

    Of equally good masks one with about `size` basic factors is taken.
    """
    columns: list[int] = []
    threes = fours = 0
    pairs = np.zeros(runs, int)  # of the columns so far, by the mask of their parity together
    triples = np.zeros(runs, int)
    for k in range(factors):
        free = [1 << k] if 1 << k < runs else [mask for mask in masks if mask not in columns]
        column = min(free, key=lambda mask: (pairs[mask], triples[mask], abs(mask.bit_count() - size)))
        threes, fours = threes + int(pairs[column]), fours + int(triples[column])
        triples += pairs[np.arange(runs) ^ column]
        pairs[[other ^ column for other in columns]] += 1
        columns.append(column)
    return columns, (threes, fours)
