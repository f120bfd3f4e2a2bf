"""Mean scores drawn anew over seeds and images: the noise in the places and the heights of a front."""

import numpy as np
from numpy.typing import ArrayLike

from ablate.analysis.t_interval import CONFIDENCE, Floats
from ablate.errors import BadInput

TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def as_floats(values: ArrayLike, name: str) -> Floats:
    """Values as an array of numbers.

    Args:
        values: of any shape.
        name: of the values, for the error.

    Returns:
        Of the same shape.

    Raises:
        BadInput: a value is not a number, or the rows have different lengths.
    """
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} must be numbers, in rows of one length, but got {values!r}") from error


def as_scores(scores: ArrayLike) -> Floats:
    """Scores with both axes of noise.

    Args:
        scores: (n,), (n, seeds) or (n, seeds, images): of each point, with each seed, on each image.

    Returns:
        (n, seeds, images); an axis that is not given has length 1.

    Raises:
        BadInput: the scores are empty, not finite, ragged or have more axes.
    """
    values = as_floats(scores, "scores")
    if not 1 <= values.ndim <= 3 or not values.size or not np.isfinite(values).all():
        rule = "scores must be finite, (n,), (n, seeds) or (n, seeds, images)"
        raise BadInput(f"{rule}, but got {values.shape}")
    return values.reshape(*values.shape, *[1] * (3 - values.ndim))


def draw_means(scores: Floats, samples: int, seed: int = 0) -> Floats:
    """Mean scores after drawing seeds and images anew, alike for all points.

    The axes are crossed and drawn independently (Owen 2007, Ann. Appl. Stat. 1(2)). The noise of one seed on
    one image is in both, so the draws are a little too wide. Images are drawn with replacement. Seeds are
    too few for that: the variance would be too small by (seeds - 1) / seeds, and no mean would leave the
    range of its seeds. They are drawn from the multivariate t posterior of the means, in which each mean and
    each difference of two is distributed as Student's t with seeds - 1 degrees of freedom (Geisser and
    Cornfield 1963, J. R. Stat. Soc. B 25(2)).

    Args:
        scores: (n, seeds, images); seeds are paired, and an axis of length 1 is not drawn.
        samples: number of draws, B.
        seed: of the random numbers.

    Returns:
        (B, n), rounded so that points with equal scores stay equal.
    """
    random = np.random.default_rng(seed)
    _, seeds, images = scores.shape
    by_seed, by_image = scores.mean(axis=2), scores.mean(axis=1)  # (n, S), (n, N)
    drawn = np.tile(by_seed.mean(axis=1), (samples, 1))  # (B, n)
    if seeds > 1:
        deviations = by_seed - by_seed.mean(axis=1, keepdims=True)
        normal = random.normal(size=(samples, seeds)) @ deviations.T / np.sqrt(seeds * (seeds - 1))  # (B, n)
        drawn += normal / np.sqrt(random.chisquare(seeds - 1, (samples, 1)) / (seeds - 1))
    if images > 1:
        deviations = by_image - by_image.mean(axis=1, keepdims=True)
        for draw in drawn:
            counts = np.bincount(random.integers(images, size=images), minlength=images)  # (N,)
            draw += deviations @ counts / images
    return drawn.round(12)


def mean_intervals(scores: Floats, samples: int = 1000, seed: int = 0) -> tuple[Floats, Floats]:
    """The 95 % interval of each mean score, by these draws.

    Args:
        scores: (n, seeds, images).
        samples: number of draws.
        seed: of the random numbers.

    Returns:
        The lower and the upper ends, each (n,); NaN where both axes have length 1.
    """
    if scores.shape[1:] == (1, 1):
        return np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    low, high = np.quantile(draw_means(scores, samples, seed), TAILS, axis=0)
    return low, high
