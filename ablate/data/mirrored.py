"""Finds classes that are each other's mirror images, such as left and right arrows: flips mix them up."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate.data.mapped import Images

SIDE = 8  # pixels of a thumbnail
MAX_IMAGES = 4_000  # compared, of all classes together
MIN_PER_CLASS, MAX_PER_CLASS = 16, 200
CHUNK = 16  # images in floating point at a time
# standard errors above one half, for two classes; with more classes there are more chances to mistake two for
# a pair
STANDARD_ERRORS = 1.5
OTHER = {"left": "right", "right": "left"}
Augment = bool | Literal["shift", "flip", "both"]

Array = NDArray[np.float32]


def mirrored_classes(
    classes: Sequence[str], images: Images, labels: NDArray[np.int64]
) -> tuple[tuple[str, str], ...]:
    """Find pairs of classes of which each, mirrored, is the other.

    By their names: "left" stands in one where "right" stands in the other. By their images: on thumbnails,
    the images of either class are nearest to their own class, and their mirror images to the other one.

    Args:
        classes: Names of the classes.
        images: Training images, (N, H, W, 3). At most MAX_IMAGES of them are compared.
        labels: Their classes as numbers, (N,).

    Returns:
        Pairs of names, in the order of the classes.
    """
    pairs = {*_by_name(classes), *_by_image(images, labels)}
    return tuple((classes[a], classes[b]) for a, b in sorted(pairs))


def augmentation(augment: Augment, mirrored: Sequence[object]) -> Augment:
    """Decide a recipe's `augment`: on data with mirrored classes true becomes false.

    Shifts are left out, too: mirrored classes often differ in where something is in the image.

    Args:
        augment: As the user set it.
        mirrored: Pairs of classes that are each other's mirror images.

    Returns:
        What is done in training.
    """
    if augment is True and mirrored:
        return False
    return True if augment == "both" and not mirrored else augment


def _by_name(classes: Sequence[str]) -> Iterator[tuple[int, int]]:
    place = {name.casefold(): i for i, name in enumerate(classes)}
    for name, i in place.items():
        swapped = re.sub("left|right", lambda word: OTHER[word.group()], name)
        if (j := place.get(swapped, i)) > i:
            yield i, j


def _by_image(images: Images, labels: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    present = np.unique(labels)  # a class may have no image
    classes = len(present)
    per_class = int(np.clip(MAX_IMAGES // classes, MIN_PER_CLASS, MAX_PER_CLASS))
    members = [np.flatnonzero(labels == label)[:per_class] for label in present]
    sizes = np.array([len(m) for m in members])
    own = _thumbnails(images, np.concatenate(members))  # (n, SIDE, SIDE, 3), class after class
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat, flipped = own.reshape(len(own), -1), own[:, :, ::-1].reshape(len(own), -1)
    # Of the images of class a: the share that is nearer to a than to class b, and the share whose mirror
    # images are nearer to b.
    alike, swapped = np.zeros((classes, classes)), np.zeros((classes, classes))
    for a in range(classes):
        rows = slice(starts[a], starts[a + 1])
        direct, mirror = _distances(flat[rows], flat), _distances(flipped[rows], flat)
        direct[np.arange(sizes[a]), np.arange(sizes[a]) + starts[a]] = np.inf  # not to itself
        # (images of a, classes)
        nearest, turned = (np.minimum.reduceat(d, starts[:-1], axis=1) for d in (direct, mirror))
        alike[a], swapped[a] = (nearest[:, [a]] < nearest).mean(0), (turned < turned[:, [a]]).mean(0)
    errors = STANDARD_ERRORS + 0.4 * np.log10(classes / 2)
    # Few series of that many fair coins have a larger share of heads.
    threshold = 0.5 + errors / (2 * np.sqrt(sizes))
    both = (alike > threshold[:, None]) & (swapped > threshold[:, None])
    yield from ((int(present[a]), int(present[b])) for a, b in np.argwhere(np.triu(both & both.T, 1)))


def _thumbnails(images: Images, chosen: NDArray[np.int64]) -> Array:
    """(N, H, W, 3) -> (n, SIDE, SIDE, 3) of those chosen, each of mean 0 a colour and of deviation 1."""
    import torch  # takes seconds, for which a list of datasets need not wait
    import torch.nn.functional as F

    # All images as floats would fill the memory.
    chunks = (images[chosen[i : i + CHUNK]] for i in range(0, len(chosen), CHUNK))
    pixels = (torch.from_numpy(chunk).permute(0, 3, 1, 2).float() for chunk in chunks)  # (b, 3, H, W)
    small = torch.cat([F.adaptive_avg_pool2d(each, SIDE) for each in pixels])  # (n, 3, SIDE, SIDE)
    small = small - small.mean((2, 3), keepdim=True)
    small = small / small.flatten(1).std(1).clamp(min=1e-3)[:, None, None, None]
    return small.permute(0, 2, 3, 1).numpy()


def _distances(a: Array, b: Array) -> Array:
    """Squared, (n, m)."""
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
