"""Datasets as uint8 arrays at their native size, their splits, and nested subsets.

The splits of `cifar10` hold those of the bundled `cifar10-mini`, each in its own: what is trained on or chosen with either
one is never tested with the other.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate.config.builtin import ASSETS, IMAGEFOLDER, absolute_data, bundled
from ablate.data import cache, folder_layout, image_folder
from ablate.data.mirrored import mirrored_classes
from ablate.errors import BadInput, unknown

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
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


_loaded: dict[
    tuple[str, object], tuple[object, "Dataset"]
] = {}  # by name and model: the state of its files, what they held
Splits = tuple[Split, Split, Split]  # train, validation, test


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, apart. A search sees `validation` only."""

    classes: list[str]
    train: Split
    validation: Split
    test: Split
    digest: str  # sha256 of all pixels and labels, in split order
    notes: tuple[str, ...] = ()  # what a user should know of it, a line each
    at_decoding: bool = (
        False  # each image was resized and cropped from its own size, by the image processor of a model
    )
    covered: bool = False  # images were made to cover one size, and cropped in the middle

    @cached_property
    def mirrored(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes that are each other's mirror images; none in the datasets that have a name."""
        known = self.digest in DIGESTS.values()
        return () if known else mirrored_classes(self.classes, self.train.images, self.train.labels)


def load(name: str, preprocess: Optional["Preprocess"] = None) -> Dataset:
    """Load a dataset, once a process and again when its files have changed. Nothing is downloaded here.

    The notes of a folder of images are printed on standard error each time that it is decoded.

    Args:
        name: A bundled name, "cifar10" once it was fetched, or "imagefolder:PATH", with "?size=N" for another size.
        preprocess: What a model's image processor does, which says at what size the images of a folder are decoded.

    Returns:
        The images of training, validation and test, as uint8.

    Raises:
        BadInput: The dataset is unknown, missing or not what it should be.
    """
    name = absolute_data(name, Path())
    key = name, preprocess if name.startswith(IMAGEFOLDER) else None
    state = _state(name)
    if key not in _loaded or _loaded[key][0] != state:
        _loaded.pop(key, None)  # its memory, before the new one's
        _loaded[key] = state, _load(*key)
    return _loaded[key][1]


def known() -> dict[str, str]:
    """Datasets by name, each with its one-line description."""
    own = "your own images, a folder a class, with or without train/, val/ and test/ above; ?size=N resizes them"
    return bundled("dataset") | cache.DATASETS | {f"{IMAGEFOLDER}PATH": own}


def where(name: str) -> str:
    """Whether a known dataset is bundled, the file it was fetched to, or how to get it."""
    if name in bundled("dataset"):
        return "bundled"
    if name not in cache.DATASETS:
        return "yours"
    path = cache.cached(name)
    return str(path) if path.exists() else f"not here yet: ablate data fetch {name}"


def _state(name: str) -> object:
    """What changes with the files of a dataset."""
    if name.startswith(IMAGEFOLDER) and name != IMAGEFOLDER:
        return folder_layout.state(Path(_folder_and_side(name)[0]))
    if name not in cache.DATASETS or not (path := cache.cached(name)).exists():
        return None
    about = path.stat()
    return path, about.st_ino, about.st_size, about.st_mtime_ns


def _load(name: str, preprocess: Optional["Preprocess"] = None) -> Dataset:
    if name.startswith(IMAGEFOLDER) and name != IMAGEFOLDER:
        return _imagefolder(*_folder_and_side(name), preprocess)
    if name in cache.DATASETS:
        return _checked(name, _cifar10(), f"run `ablate data fetch {name}`")
    if name not in bundled("dataset"):
        raise unknown("dataset", name, known())
    train, validation, test = (
        _mosaic(ASSETS / name / f"{split}.webp") for split in ("train", "validation", "test")
    )
    return _checked(name, (train, validation, test), "install ablate-vit again")


def _checked(name: str, splits: Splits, mend: str) -> Dataset:
    digest = _digest(splits, labels=name != "cifar10-mini")
    if digest != DIGESTS[name]:
        raise BadInput(
            f"dataset {name!r} must have sha256 {DIGESTS[name][:12]}, but got {digest[:12]}; {mend}"
        )
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
    arrays = cache.read("cifar10")
    images, labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
    held = np.sort(
        np.concatenate([np.flatnonzero(labels == label)[400:900] for label in range(len(CIFAR10))])
    )
    kept = np.delete(np.arange(len(labels)), held)
    test = Split(arrays["test_images"], arrays["test_labels"].astype(np.int64))
    return Split(images[kept], labels[kept]), Split(images[held], labels[held]), test


def _folder_and_side(name: str) -> tuple[str, str]:
    """The path and the side of "imagefolder:PATH?size=SIDE"; without one, ""."""
    found = re.fullmatch(r"(.*?)(?:\?size=(\d+))?", name.removeprefix(IMAGEFOLDER), re.DOTALL)
    assert found
    return found[1], found[2] or ""


def _imagefolder(folder: str, side: str, preprocess: Optional["Preprocess"]) -> Dataset:
    if side and not 8 <= int(side) <= 4096:
        raise BadInput(
            f"8 <= size <= 4096 must hold, but got ?size={side}; give the side of an image in pixels"
        )
    found = image_folder.contents(Path(folder), int(side) if side else None, preprocess)
    train, validation, test = (Split(*found.arrays[split]) for split in ("train", "validation", "test"))
    digest = _digest((train, validation, test))
    if found.at_decoding:  # pixels of images that are to be resized and cropped yet may be equal to these
        digest = hashlib.sha256(f"{digest} as the model takes them".encode()).hexdigest()
    return Dataset(
        found.classes, train, validation, test, digest, found.notes, found.at_decoding, found.covered
    )
