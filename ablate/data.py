"""Datasets as uint8 arrays at their native size, their splits, and nested subsets."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate.errors import BadInput, unknown
from ablate.spec import bundled

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ASSETS = Path(__file__).parent / "assets"
SIDE = 32  # pixels
CIFAR10_MINI = "e9983e1a1db6920d7b89266d3fdcedc5980414dcb8228f19d3e07452b1e46b6d"  # sha256 of train, validation, test


@dataclass(frozen=True)
class Split:
    """Images and their classes."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    labels: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, apart. A search sees `validation` only."""

    classes: list[str]
    train: Split
    validation: Split
    test: Split
    digest: str  # sha256 of all pixels, in split order


@lru_cache
def load(name: str) -> Dataset:
    """A dataset by its name. Raises BadInput when it is unknown, missing or not what it should be."""
    if name not in (known := bundled("dataset")):
        raise unknown("dataset", name, known)
    train, validation, test = (_mosaic(ASSETS / name / f"{split}.webp") for split in ("train", "validation", "test"))
    digest = hashlib.sha256(b"".join(split.images.tobytes() for split in (train, validation, test))).hexdigest()
    if digest != CIFAR10_MINI:
        raise BadInput(
            f"dataset {name!r} must have sha256 {CIFAR10_MINI[:12]}, but got {digest[:12]}; install ablate-vit again"
        )
    return Dataset(CIFAR10, train, validation, test, digest)


def subset(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Indices of a class-stratified share of the images, sorted: (n,).

    Nested: for one seed, a smaller fraction's images are among a larger one's. Every class keeps one image at least.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def _mosaic(path: Path) -> Split:
    """A file of 32 x 32 tiles in row-major order, class by class, the same number of each."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))  # (rows * 32, columns * 32, 3)
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error}; install ablate-vit again") from None
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)  # (rows, columns, 32, 32, 3)
    images = tiles.reshape(-1, SIDE, SIDE, 3)  # (N, 32, 32, 3)
    return Split(images, np.repeat(np.arange(10), len(images) // 10))
