"""CIFAR-10 and the small part of it that comes with the package.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The splits of `cifar10` contain
those of `cifar10-mini`, each in its own: no image that is trained on or chosen with in one is a test image of
the other.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ablate.config.builtin import ASSETS
from ablate.data import cache
from ablate.data.cifar10_download import SOURCES
from ablate.data.dataset import DIGESTS, Dataset, Split, digest_of
from ablate.errors import BadInput

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE = 32  # pixels
REINSTALL = "install ablate-vit again"
DOWNLOAD = cache.Download(
    "cifar10",
    SOURCES,
    sha256={  # in the official order of the images
        "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
    needed_bytes=600_000_000,  # the archive, unpacked beside it, and the result
)


def load_mini() -> Dataset:
    """Read the bundled images. Raises BadInput where the files are damaged."""
    train, validation, test = (
        _mosaic(ASSETS / "cifar10-mini" / f"{split}.webp") for split in ("train", "validation", "test")
    )
    return _checked("cifar10-mini", train, validation, test, advice=REINSTALL)


def load_1k() -> Dataset:
    """`cifar10-mini` with 100 training images of each class. Raises BadInput where it is damaged."""
    mini = load_mini()
    labels = mini.train.labels
    rows = np.concatenate([np.flatnonzero(labels == label)[:100] for label in range(len(CIFAR10))])
    train = Split(mini.train.images[rows], labels[rows])
    return _checked("cifar10-1k", train, mini.validation, mini.test, advice=REINSTALL)


def load_cifar10() -> Dataset:
    """Read the images that were fetched. Raises BadInput where they are missing or damaged.

    Of each class, images 400 to 899 in the official training order are for validation: 5,000 in all.
    `cifar10-mini` has the first 400 of each class for training and the next 100 for validation.
    """
    arrays = cache.read(DOWNLOAD)
    images, labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
    of_class = [np.flatnonzero(labels == label) for label in range(len(CIFAR10))]
    held = np.sort(np.concatenate([members[400:900] for members in of_class]))
    kept = np.delete(np.arange(len(labels)), held)
    train, validation = (Split(images[rows], labels[rows]) for rows in (kept, held))
    test = Split(arrays["test_images"], arrays["test_labels"].astype(np.int64))
    return _checked("cifar10", train, validation, test, advice="run `ablate data fetch cifar10`")


def _mosaic(path: Path) -> Split:
    """A file of 32 x 32 tiles in row-major order, class by class, the same number of each."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))  # (rows * 32, columns * 32, 3)
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error}; {REINSTALL}") from None
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)  # (rows, columns, 32, 32, 3)
    images = tiles.reshape(-1, SIDE, SIDE, 3)  # (N, 32, 32, 3)
    return Split(images, np.repeat(np.arange(10), len(images) // 10))


def _checked(name: str, *splits: Split, advice: str) -> Dataset:
    train, validation, test = splits
    expected, digest = DIGESTS[name], digest_of(splits, labels=name != "cifar10-mini")
    if digest != expected:
        raise BadInput(f"dataset {name!r} must have sha256 {expected[:12]}, but got {digest[:12]}; {advice}")
    return Dataset(CIFAR10, train, validation, test, digest)
