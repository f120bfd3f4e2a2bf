"""How a gap changes with the volume of data."""

import numpy as np
from numpy.typing import ArrayLike

from ablate.analysis.t_interval import Floats


def trend(images: ArrayLike, gaps: Floats, degree: int = 1) -> Floats:
    """The leading coefficient of each seed's least-squares polynomial in log10 D.

    Args:
        images: (K,) the sizes D.
        gaps: (S, K), a row per seed.
        degree: of the polynomial; 1 gives slopes per decade of images.

    Returns:
        (S,).
    """
    return np.polyfit(np.log10(images), gaps.T, degree)[0]
