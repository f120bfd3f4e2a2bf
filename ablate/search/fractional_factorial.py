"""Regular fractions of factorial designs: so few of all combinations that the effects of single factors stay apart.

2^(k-p) designs (Box & Hunter, Technometrics 3, 1961): the levels of some factors run through all combinations, and each
further factor has the parity of some of those. Which ones is chosen factor by factor, for the fewest words of length 3
and then of length 4, that is for the fewest single effects that look like those of a pair, and pairs that look like pairs.
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
    """Levels (runs, factors) of two-level factors, every pair of columns orthogonal, and the design's resolution.

    Resolution 3: no single effect looks like another one; 4: nor like that of a pair; 5 (or more): nor do pairs look like
    pairs. Raises BadInput unless runs is a power of two above the number of factors and at most that of all combinations.
    """
    if runs.bit_count() != 1 or not factors < runs <= 2**factors:
        rule = f"points must be a power of two above the {factors} factors and at most 2^{factors}"
        raise BadInput(f"{rule}, but got {runs}; one such is {2 ** factors.bit_length()}")
    odd = [
        mask for mask in range(1, runs) if mask.bit_count() % 2
    ]  # any of these alone: resolution 4 at least
    tried = [
        _columns(factors, runs, masks, size)
        for masks in ([*range(1, runs)], odd)
        for size in range(2, max(3, runs.bit_length()))
        if len(masks) >= factors
    ]
    columns, (threes, fours) = min(tried, key=lambda found: found[1])
    parity = [[(run & column).bit_count() % 2 == 1 for column in columns] for run in range(runs)]
    return np.array(parity), 3 if threes else 4 if fours else 5


def _columns(factors: int, runs: int, masks: list[int], size: int) -> tuple[list[int], tuple[int, int]]:
    """Columns, each as the set of basic factors, a bit each, whose parity it has; and how many words are of length 3 and 4.

    Of equally good ones a set of about `size` is taken.
    """
    columns: list[int] = []
    threes = fours = 0
    pairs, triples = (
        np.zeros(runs, int),
        np.zeros(runs, int),
    )  # of the columns so far, by the parity that they have together
    for k in range(factors):
        free = [1 << k] if 1 << k < runs else [mask for mask in masks if mask not in columns]
        column = min(free, key=lambda mask: (pairs[mask], triples[mask], abs(mask.bit_count() - size)))
        threes, fours = threes + int(pairs[column]), fours + int(triples[column])
        triples += pairs[np.arange(runs) ^ column]
        pairs[[other ^ column for other in columns]] += 1
        columns.append(column)
    return columns, (threes, fours)
