"""A dataset in memory: uint8 images at their native size, their classes, and nested subsets of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate.config.trial_spec import Half
from ablate.data.halves import halves, pixel_keys
from ablate.data.mapped import Images, MappedImages, select
from ablate.data.mirrored import mirrored_classes

# sha256 of the datasets that have a name, whose classes are known not to be mirror images of each other
DIGESTS = {
    "cifar10-mini": "e9983e1a1db6920d7b89266d3fdcedc5980414dcb8228f19d3e07452b1e46b6d",  # of its pixels alone
    "cifar10-1k": "00584148d6384860a2e9a82a627e04334f8b85b7c49cd27fe98f4b211e32ffcd",
    "cifar10": "4a65e789c4edeb3291c99906453a787f14a2417fd14d4ccb5e8655049abef74a",
}


AT_ONCE = 1000  # images that are read for a digest


@dataclass(frozen=True)
class Split:
    """Images and their classes."""

    images: Images  # uint8 (N, H, W, 3)
    labels: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, rows: NDArray[np.int64]) -> "Split":
        """The split of some of its images, (n,); those of a file are not read yet."""
        return Split(select(self.images, rows), self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images. A search reads `validation` only.

    Attributes:
        classes: Names of the classes; a label is an index into them.
        train: What is trained on.
        validation: What trials are compared on.
        test: What a finished comparison is reported on, half A of it unless a study is final.
        digest: sha256 of all pixels and labels, in the order of the splits.
        notes: What a user should know of the data, a line each.
        at_decoding: Whether a model's image processor resized and cropped each image from its own size.
        covered: Whether images were scaled until they cover one size, and cropped in the middle.
        test_keys: A hash of each test image at its own size, in hexadecimal digits, where the size in `test`
            depends on the model. Empty: the hash is that of the pixels in `test`.
    """

    classes: list[str]
    train: Split
    validation: Split
    test: Split
    digest: str
    notes: tuple[str, ...] = ()
    at_decoding: bool = False
    covered: bool = False
    test_keys: tuple[str, ...] = ()

    def tested(self, test: Literal[True] | Half) -> Split:
        """The images that a trial is tested on: a half of the test images or, for True, all of them."""
        if test is True:
            return self.test
        return self.test.some(self.halves[test])

    @cached_property
    def halves(self) -> dict[Half, NDArray[np.int64]]:
        """Indices of the test images of each half; `data.halves` says how they are cut."""
        return halves(self.test.labels, self._keys())

    @cached_property
    def digest_of_b(self) -> str:
        """sha256 of the images of half B, the same for every model, order and training set."""
        return hashlib.sha256("".join(sorted(self._keys()[self.halves["B"]])).encode()).hexdigest()

    def _keys(self) -> NDArray[np.str_]:
        return np.array(self.test_keys, dtype="U64") if self.test_keys else pixel_keys(self.test.images[:])

    @property
    def files(self) -> set[Path]:
        """The files that every worker must reach: those of images that are larger than memory."""
        splits = (self.train, self.validation, self.test)
        return {split.images.path for split in splits if isinstance(split.images, MappedImages)}

    @cached_property
    def mirrored(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes that are each other's mirror images; none in the datasets that have a name."""
        if self.digest in DIGESTS.values():
            return ()
        return mirrored_classes(self.classes, self.train.images, self.train.labels)


def digest_of(splits: Sequence[Split], labels: bool = True) -> str:
    """Compute the sha256 of splits.

    Args:
        splits: In a fixed order.
        labels: Whether shapes and labels count beside the pixels.

    Returns:
        64 hexadecimal digits.
    """
    sha = hashlib.sha256()
    for split in splits:
        if labels:
            sha.update(str(split.images.shape).encode() + split.labels.tobytes())
        for i in range(0, len(split), AT_ONCE):
            sha.update(np.ascontiguousarray(split.images[i : i + AT_ONCE]).data)
    return sha.hexdigest()


def subset(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Draw a class-stratified share of the images.

    The draws are nested: for one seed, the images of a smaller fraction are among those of a larger one.

    Args:
        labels: Classes of all images, (N,).
        fraction: The share of each class to draw, in (0, 1]. Every class keeps one image at least.
        seed: Of the draw.

    Returns:
        Sorted indices, (n,).
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))
