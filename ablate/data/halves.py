"""Cuts test images into half A, which development sees, and half B, which is held back.

Within each class the images are ranked by a hash of their pixels. The first half of them is A, the larger one
where their number is odd. An image of B with equal pixels in A goes to A, whatever its class. So the cut
depends on the images alone: not on their order, their files, a seed or the model.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ablate.config.trial_spec import Half


def halves(labels: NDArray[np.int64], keys: NDArray[np.str_]) -> dict[Half, NDArray[np.int64]]:
    """Cut test images into halves, by the rule at the top of this file.

    Args:
        labels: Their classes, (N,).
        keys: A hash of each, (N,), as hexadecimal digits; equal for images with equal pixels.

    Returns:
        Sorted indices of each half. B is empty where each class has one image, or copies of one.
    """
    in_a = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members], kind="stable")]
        in_a[ranked[: (len(ranked) + 1) // 2]] = True
    in_a = np.isin(keys, keys[in_a])
    return {"A": np.flatnonzero(in_a), "B": np.flatnonzero(~in_a)}


def pixel_keys(images: NDArray[np.uint8]) -> NDArray[np.str_]:
    """The sha256 of each image's pixels. images: (N, H, W, 3). Returns (N,), 64 hexadecimal digits each."""
    return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images], dtype="U64")
