"""How far a classifier's confidence is from its accuracy."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

N_BINS = 15  # as in the tables of Guo et al. 2017


def calibration_error(logits: NDArray[np.floating], labels: NDArray[np.integer], bins: int = N_BINS) -> float:
    """Return the expected calibration error [Guo et al. 2017, arXiv 1706.04599, eq. 3].

    Args:
        logits: (N, classes).
        labels: (N,).
        bins: Of equal width, over the largest probability of each image.

    Returns:
        The mean over the images of |accuracy - confidence| of their bin, 0 to 1.
    """
    probabilities = softmax(np.asarray(logits, float), axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels  # (N,)
    rows = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bin m is ((m - 1)/M, m/M]
    gaps = np.bincount(rows, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
