"""Bootstrap intervals over seeds, and over test images where each trial's predictions are known."""

import numpy as np
from scipy import stats

from ablate.analysis.pairs import Pairs
from ablate.analysis.t_interval import CONFIDENCE, Floats, t_quantile


def resample(pairs: Pairs, resamples: int, seed: int = 0) -> Floats:
    """Mean accuracies after drawing seeds, and test images where they are known, with replacement.

    Seeds and images are crossed and drawn independently. Within a draw all trials have the same images (Owen
    2007, "The pigeonhole bootstrap").

    Args:
        pairs: the paired trials of S seeds and K sizes.
        resamples: number of draws, B.
        seed: of the random numbers.

    Returns:
        (B, 2, K); the second axis is (baseline, arm).
    """
    random = np.random.default_rng(seed)
    n = len(pairs.seeds)
    seed_weights = random.multinomial(n, np.full(n, 1 / n), resamples) / n  # (B, S)
    if pairs.correct is None:
        return np.einsum("bs,ask->bak", seed_weights, pairs.accuracy)
    images = pairs.correct.shape[-1]
    means = np.empty((resamples, 2, len(pairs.images)))
    for i in range(resamples):
        counts = np.bincount(random.integers(images, size=images), minlength=images)  # (N,)
        image_weights = counts.astype(np.float32) / images
        means[i] = seed_weights[i] @ (pairs.correct @ image_weights)  # (S,) @ (2, S, K)
    return means


def percentile_interval(draws: Floats, seeds: int, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """The percentile interval of bootstrap draws, expanded to the width that t has for few seeds.

    Hesterberg 2015, arXiv 1411.5279, "expanded percentile".

    Args:
        draws: (B, ...).
        seeds: number of seeds that the draws were made from, 2 or more.
        confidence: of the interval.

    Returns:
        The lower and the upper ends, each (...).
    """
    width = np.sqrt(seeds / (seeds - 1)) * t_quantile(seeds - 1, confidence)  # in SD of the draws
    tail = stats.norm.cdf(-width)
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
