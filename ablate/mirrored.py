"""Classes that are each other's mirror images, as arrows to the left and to the right: flips would mix them up."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

SIDE = 8  # pixels of a thumbnail
IMAGES = 4_000  # looked at, of all classes together, and of each class from FEW up to MANY
FEW, MANY = 16, 200
SURE = 1.5  # standard errors above one half, for two classes; more of them have more chances to be mistaken for a pair
OTHER = {"left": "right", "right": "left"}
Augment = bool | Literal["shift", "flip", "both"]

Array = NDArray[np.float32]


def mirrored_classes(
    classes: Sequence[str], images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[tuple[str, str], ...]:
    """Pairs of classes of which each, mirrored, is the other, by their names or by their images.

    images: (N, H, W, 3); labels: (N,). By the names where "left" stands in one as "right" does in the other. By the images
    where, on thumbnails, those of either class are nearest to their own and their mirror images to those of the other.
    """
    found = {*_by_name(classes), *_by_image(images, labels, len(classes))}
    return tuple((classes[a], classes[b]) for a, b in sorted(found))


def augmentation(asked: Augment, mirrored: Sequence[object]) -> Augment:
    """What a recipe's `augment` comes to on data with these mirrored classes: true is false where there are any.

    Shifts are left out, too: where mirrored classes differ is often a place in the image.
    """
    if asked is True and mirrored:
        return False
    return True if asked == "both" and not mirrored else asked


def _by_name(classes: Sequence[str]) -> Iterator[tuple[int, int]]:
    place = {name.casefold(): i for i, name in enumerate(classes)}
    for name, i in place.items():
        swapped = re.sub("left|right", lambda word: OTHER[word.group()], name)
        if (j := place.get(swapped, i)) > i:
            yield i, j


def _by_image(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> Iterator[tuple[int, int]]:
    most = int(np.clip(IMAGES // classes, FEW, MANY))
    members = [np.flatnonzero(labels == label)[:most] for label in range(classes)]
    sizes = np.array([len(m) for m in members])
    own = np.concatenate([_thumbnails(images[m]) for m in members])  # (n, SIDE, SIDE, 3), class after class
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat, flipped = own.reshape(len(own), -1), own[:, :, ::-1].reshape(len(own), -1)
    alike, swapped = np.zeros((classes, classes)), np.zeros((classes, classes))
    for a in range(classes):  # shares of its images that are nearer to it than to each other one, and mirrored the reverse
        rows = slice(starts[a], starts[a + 1])
        direct, mirror = _distances(flat[rows], flat), _distances(flipped[rows], flat)
        direct[np.arange(sizes[a]), np.arange(sizes[a]) + starts[a]] = np.inf  # not to itself
        nearest, turned = (np.minimum.reduceat(d, starts[:-1], axis=1) for d in (direct, mirror))  # (images of a, classes)
        alike[a], swapped[a] = (nearest[:, [a]] < nearest).mean(0), (turned < turned[:, [a]]).mean(0)
    sure = SURE + 0.4 * np.log10(classes / 2)
    clear = 0.5 + sure / (2 * np.sqrt(sizes))  # of fair coins, a share above that is rare
    both = (alike > clear[:, None]) & (swapped > clear[:, None])
    yield from ((int(a), int(b)) for a, b in np.argwhere(np.triu(both & both.T, 1)))


def _thumbnails(images: NDArray[np.uint8]) -> Array:
    """(n, H, W, 3) -> (n, SIDE, SIDE, 3), each of mean 0 a colour and of deviation 1."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    small = F.adaptive_avg_pool2d(pixels, SIDE)  # (n, 3, SIDE, SIDE)
    small = small - small.mean((2, 3), keepdim=True)
    small = small / small.flatten(1).std(1).clamp(min=1e-3)[:, None, None, None]
    return small.permute(0, 2, 3, 1).numpy()


def _distances(a: Array, b: Array) -> Array:
    """Squared, (n, m)."""
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
