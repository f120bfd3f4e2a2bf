"""Anyone's own images: a folder in the layout of torchvision's ImageFolder, decoded once to uint8 at one size.

Splits: `train/`, `val/` (or `validation/`) and `test/`, each with a folder a class; or only a folder a class. Then, within
each class, files are ranked by the sha256 of their path below the folder ("cat/001.png"): the first tenth is the test set,
the next tenth is for validation, at least one image each, and the rest is for training.

Size: the one asked for; or the images' own, when all have the same; or 224 x 224. An image of another size is resized until
it covers that size, and cropped in the middle.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from ablate.errors import BadInput

T = TypeVar("T")
Files = list[tuple[Path, int]]  # image and class
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W, 3) and labels (N,)

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
SIDE = 224  # pixels, of images that differ in size
MEMORY_SHARE = 0.3  # of the machine's; Ray's object store, where the images travel, has as much


def read(folder: Path, side: int | None = None) -> tuple[list[str], dict[str, Arrays]]:
    """Classes, by their folders' names in order, and the arrays of train, validation and test; `side` in pixels.

    Raises BadInput for a folder of another layout, for files that are no images, and for what does not fit in memory.
    """
    classes, splits = _listed(folder)
    files = [path for each in splits.values() for path, _ in each]
    sizes = set(_each(_size, files, "Looking at images"))
    width, height = (side, side) if side else sizes.pop() if len(sizes) == 1 else (SIDE, SIDE)
    needed, limit = len(files) * width * height * 3, MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > limit:
        what = f"{len(files):,} of {width} x {height} pixels take {needed / 1e9:.1f} GB"
        rule = f"images must fit in {100 * MEMORY_SHARE:.0f} % of memory, {limit / 1e9:.1f} GB"
        raise BadInput(f"{rule}, but {what}; give a smaller side, such as imagefolder:{folder}?size={min(width, height) // 2}")
    arrays = {}
    for split, members in splits.items():
        images = np.empty((len(members), height, width, 3), np.uint8)  # (N, H, W, 3)
        decoded = _each(partial(fitted, size=(width, height)), [path for path, _ in members], f"Decoding {split}")
        for i, pixels in enumerate(decoded):
            images[i] = pixels
        arrays[split] = images, np.array([label for _, label in members], np.int64)
    return classes, arrays


def _listed(folder: Path) -> tuple[list[str], dict[str, Files]]:
    if not folder.is_dir():
        raise BadInput(f"imagefolder must be a folder of images, but {str(folder)!r} is none; give imagefolder:PATH")
    if not any(below.is_dir() for below in _below(folder / "train")):
        classes, files = _image_folder(folder)
        return classes, _split(folder, classes, files)
    found = {split: next((folder / n for n in names if (folder / n).is_dir()), None) for split, names in SPLITS.items()}
    if absent := [split for split, path in found.items() if path is None]:
        rule = "a folder with train/ must have val/ and test/ beside it"
        raise BadInput(f"{rule}, but {str(folder)!r} lacks {' and '.join(absent)}; without all three, have a folder a class")
    listed = {split: _image_folder(path) for split, path in found.items() if path}
    classes = listed["train"][0]
    for split, (others, _) in listed.items():
        if differ := sorted(set(classes) ^ set(others)):
            raise BadInput(f"train and {split} of {str(folder)!r} must have the same classes, but differ in {differ[0]!r}")
    return classes, {split: files for split, (_, files) in listed.items()}


def _image_folder(folder: Path) -> tuple[list[str], Files]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except OSError as error:
        raise BadInput(f"{str(folder)!r} must hold a folder of images a class, but: {' '.join(str(error).split())}") from None
    if len(found.classes) < 2:
        raise BadInput(f"{str(folder)!r} must hold two classes or more, but has {found.classes}; make a folder a class")
    return found.classes, [(Path(path), label) for path, label in found.samples]


def _split(folder: Path, classes: list[str], files: Files) -> dict[str, Files]:
    """The rule at the top of this file."""

    def rank(file: tuple[Path, int]) -> str:
        return hashlib.sha256(file[0].relative_to(folder).as_posix().encode()).hexdigest()

    splits: dict[str, Files] = {split: [] for split in SPLITS}
    for label, name in enumerate(classes):
        ranked = sorted((file for file in files if file[1] == label), key=rank)
        if len(ranked) < len(SPLITS):
            raise BadInput(
                f"a class must have an image a split, {len(SPLITS)} in all, but {name!r} has {len(ranked)}; add some"
            )
        tenth = max(1, round(len(ranked) / 10))
        splits["test"] += sorted(ranked[:tenth])
        splits["validation"] += sorted(ranked[tenth : 2 * tenth])
        splits["train"] += sorted(ranked[2 * tenth :])
    return splits


def _each(function: Callable[[Path], T | str], files: list[Path], text: str) -> Iterable[T]:
    """`function` of every file, on all CPUs, in order. Raises BadInput that counts the files with a fault, and names three."""
    console, faults = Console(stderr=True), []
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow lets other threads run
    try:
        results = pool.map(function, files)
        shown = track(results, text, len(files), console=console, disable=not console.is_terminal)
        for path, result in zip(files, shown, strict=True):
            if isinstance(result, str):
                faults.append(f"{str(path)!r} ({result})")
            elif not faults:
                yield result
    finally:
        pool.shutdown(cancel_futures=True)
    if faults:
        rule = "every image must be one that Pillow reads"
        raise BadInput(f"{rule}, but {len(faults)} of {len(files)} can't: {', '.join(faults[:3])}; mend or remove them")


def _size(path: Path) -> tuple[int, int] | str:
    """(width, height) in pixels, or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow raises several kinds
        return _reason(error)


def fitted(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | str:
    """uint8 (H, W, 3) at `size`, which is (width, height), or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC))
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    return "no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def _below(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
