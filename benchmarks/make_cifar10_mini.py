"""Make cifar10-mini, a class-balanced subset of CIFAR-10, as three lossless WebP mosaics.

The source is CIFAR-10 as `ablate data fetch cifar10` gets and checks it (here too, unless it was fetched
before). Run:

    python benchmarks/make_cifar10_mini.py

For each class: train has the first 400 images in the official training order, validation has
the next 100, and test has the first 100 in the official test order. Takes about a minute.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.data import cache, cifar10, datasets

ASSETS = Path(__file__).resolve().parent.parent / "ablate" / "assets" / "cifar10-mini"
COLUMNS = 25  # tiles in a mosaic row; divides 400 and 100, so every class starts on a new row


def sha256(x: np.ndarray) -> str:
    return hashlib.sha256(x.tobytes()).hexdigest()


def pick(y: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Indices of images start..stop-1 of each class: all of class 0, then class 1, ..."""
    return np.concatenate([np.flatnonzero(y == c)[start:stop] for c in range(10)])


def to_mosaic(x: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) -> (N / COLUMNS * 32, COLUMNS * 32, 3), tiles in row-major order."""
    x = x.reshape(-1, COLUMNS, 32, 32, 3)  # (rows, columns, y, x, rgb)
    return x.transpose(0, 2, 1, 3, 4).reshape(-1, COLUMNS * 32, 3)


def from_mosaic(m: np.ndarray) -> np.ndarray:
    """The inverse of to_mosaic."""
    m = m.reshape(-1, 32, COLUMNS, 32, 3)  # (rows, y, columns, x, rgb)
    return m.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make cifar10-mini from CIFAR-10.")
    parser.add_argument("--to", type=Path, default=ASSETS, help="output folder")
    args = parser.parse_args()

    datasets.fetch("cifar10")
    arrays = cache.read(cifar10.DOWNLOAD)
    x_train, y_train, x_test, y_test = (
        arrays[f"{split}_{kind}"] for split in ("train", "test") for kind in ("images", "labels")
    )
    splits = {
        "train": x_train[pick(y_train, 0, 400)],  # (4000, 32, 32, 3)
        "validation": x_train[pick(y_train, 400, 500)],  # (1000, 32, 32, 3)
        "test": x_test[pick(y_test, 0, 100)],  # (1000, 32, 32, 3)
    }
    args.to.mkdir(parents=True, exist_ok=True)
    for name, x in splits.items():
        path = args.to / f"{name}.webp"
        image = Image.fromarray(to_mosaic(x))
        image.save(path, lossless=True, quality=100, method=6, exact=True)
        decoded = from_mosaic(np.asarray(Image.open(path)))
        if not np.array_equal(decoded, x):
            raise SystemExit(f"{path}: the decoded pixels differ from the source")
        print(f"{path.name}: {len(x)} images, {path.stat().st_size:,} bytes, {sha256(decoded)}")


if __name__ == "__main__":
    main()
