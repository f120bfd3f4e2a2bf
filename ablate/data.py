"""Datasets as uint8 arrays at their native size, their splits, and nested subsets.

The splits of `cifar10` hold those of the bundled `cifar10-mini`, each in its own: what is trained on or chosen with either
one is never tested with the other.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate import fetch, imagefolder
from ablate.builtin import IMAGEFOLDER, absolute_data, bundled
from ablate.errors import BadInput, unknown
from ablate.mirrored import mirrored_classes

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ASSETS = Path(__file__).parent / "assets"
SIDE = 32  # pixels
DIGESTS = {
    "cifar10-mini": "e9983e1a1db6920d7b89266d3fdcedc5980414dcb8228f19d3e07452b1e46b6d",  # of its pixels alone
    "cifar10": "4a65e789c4edeb3291c99906453a787f14a2417fd14d4ccb5e8655049abef74a",
}


@dataclass(frozen=True)
class Split:
    """Images and their classes."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    labels: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)


Splits = tuple[Split, Split, Split]  # train, validation, test


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, apart. A search sees `validation` only."""

    classes: list[str]
    train: Split
    validation: Split
    test: Split
    digest: str  # sha256 of all pixels and labels, in split order

    @cached_property
    def mirrored(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes that are each other's mirror images; none in the datasets that have a name."""
        known = self.digest in DIGESTS.values()
        return () if known else mirrored_classes(self.classes, self.train.images, self.train.labels)


def load(name: str) -> Dataset:
    """A dataset by its name: bundled, `cifar10` once it was fetched, or "imagefolder:PATH", with "?size=N" for another size.

    Raises BadInput when it is unknown, missing or not what it should be. Nothing is downloaded here.
    """
    return _load(absolute_data(name, Path()))


def known() -> dict[str, str]:
    """Datasets by name, each with its one-line description."""
    own = "your own images, a folder a class, with or without train/, val/ and test/ above; ?size=N resizes them"
    return bundled("dataset") | fetch.DATASETS | {f"{IMAGEFOLDER}PATH": own}


def where(name: str) -> str:
    """Whether a known dataset is bundled, the file it was fetched to, or how to get it."""
    if name in bundled("dataset"):
        return "bundled"
    if name not in fetch.DATASETS:
        return "yours"
    path = fetch.cached(name)
    return str(path) if path.exists() else f"not here yet: ablate data fetch {name}"


@lru_cache
def _load(name: str) -> Dataset:
    if name.startswith(IMAGEFOLDER) and name != IMAGEFOLDER:
        return _imagefolder(name.removeprefix(IMAGEFOLDER))
    if name in fetch.DATASETS:
        return _checked(name, _cifar10(), f"run `ablate data fetch {name}`")
    if name not in bundled("dataset"):
        raise unknown("dataset", name, known())
    train, validation, test = (_mosaic(ASSETS / name / f"{split}.webp") for split in ("train", "validation", "test"))
    return _checked(name, (train, validation, test), "install ablate-vit again")


def _checked(name: str, splits: Splits, mend: str) -> Dataset:
    digest = _digest(splits, labels=name != "cifar10-mini")
    if digest != DIGESTS[name]:
        raise BadInput(f"dataset {name!r} must have sha256 {DIGESTS[name][:12]}, but got {digest[:12]}; {mend}")
    return Dataset(CIFAR10, *splits, digest)


def _digest(splits: Splits, labels: bool = True) -> str:
    sha = hashlib.sha256()
    for split in splits:
        if labels:
            sha.update(str(split.images.shape).encode() + split.labels.tobytes())
        sha.update(split.images.data)
    return sha.hexdigest()


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


def _cifar10() -> Splits:
    """Of each class, images 400 to 899 in the official training order are for validation: 5,000 in all.

    cifar10-mini has the first 400 of each class for training and the next 100 for validation.
    """
    arrays = fetch.read("cifar10")
    images, labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
    held = np.sort(np.concatenate([np.flatnonzero(labels == label)[400:900] for label in range(len(CIFAR10))]))
    kept = np.delete(np.arange(len(labels)), held)
    test = Split(arrays["test_images"], arrays["test_labels"].astype(np.int64))
    return Split(images[kept], labels[kept]), Split(images[held], labels[held]), test


def _imagefolder(path: str) -> Dataset:
    folder, _, side = path.rpartition("?size=") if re.search(r"\?size=\d+$", path) else (path, "", "")
    if side and not 8 <= int(side) <= 4096:
        raise BadInput(f"8 <= size <= 4096 must hold, but got ?size={side}; give the side of an image in pixels")
    classes, arrays = imagefolder.read(Path(folder), int(side) if side else None)
    splits = Split(*arrays["train"]), Split(*arrays["validation"]), Split(*arrays["test"])
    return Dataset(classes, *splits, _digest(splits))
