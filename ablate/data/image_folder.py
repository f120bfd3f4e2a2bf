"""Anyone's own images: a folder in the layout of torchvision's ImageFolder, decoded once to uint8 at one size.

`folder_layout` says which files and classes a folder has, `decoding` what a file shows, `image_size` at which size, and
`splitting` what is trained on.
"""

import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ablate.data import decoding, image_size, splitting
from ablate.data.folder_layout import layout
from ablate.data.image_size import Fit
from ablate.errors import BadInput
from ablate.hardware import cpus, memory_bytes

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

T = TypeVar("T")
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W, 3) and labels (N,)

MEMORY_SHARE = 0.3  # of what this process may use; Ray's object store, where the images travel, has as much


class Contents(NamedTuple):
    """Classes in order, the arrays of train, validation and test, and one line on each thing that a user should know."""

    classes: list[str]
    arrays: dict[str, Arrays]
    notes: tuple[str, ...]
    at_decoding: bool  # whether the model's image processor resized and cropped them
    covered: bool  # whether they were made to cover one size, and cropped in the middle


class _Read(NamedTuple):
    pixels: NDArray[np.uint8]  # (H, W, 3)
    key: bytes  # equal for images that show the same
    changes: tuple[str, ...]


def read(folder: Path, side: int | None = None) -> tuple[list[str], dict[str, Arrays]]:
    """Classes, by their folders' names in order, and the arrays of train, validation and test; `side` in pixels.

    Raises what `contents` raises.
    """
    return contents(folder, side)[:2]


def contents(folder: Path, side: int | None = None, preprocess: Optional["Preprocess"] = None) -> Contents:
    """Decode all images of a folder to one size. What a user should know is printed on standard error as well.

    Args:
        folder: In a layout that `folder_layout` knows.
        side: Of the square images to make, in pixels; None: by the rule of `image_size`.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The classes, and of each split images, uint8 (N, H, W, 3), and labels, int64 (N,).

    Raises:
        BadInput: The folder has another layout, files are no images, the images do not fit in memory, or the processor
            does not bring them to one size.
    """
    found = layout(folder)
    files = [path for each in found.files.values() for path, _ in each]
    sizes = list(_each(decoding.size, files, "Looking at images"))
    fit = image_size.fit(sizes, side, preprocess)
    width, height = fit.size
    _check_memory(folder, len(files), width, height)
    expected = splitting.split(found, {path: bytes(path) for path in files})  # unless there are copies
    files = [path for each in expected.values() for path, _ in each]
    images = np.empty((len(files), height, width, 3), np.uint8)  # (N, H, W, 3)
    keys, changes = dict[Path, bytes](), Counter[str]()
    for i, one in enumerate(_each(partial(_read, fit=fit), files, "Decoding")):
        images[i], keys[files[i]] = one.pixels, one.key
        changes.update(one.changes)
    if (splits := splitting.split(found, keys)) != expected:
        rows = {path: i for i, path in enumerate(files)}
        images = images[[rows[path] for members in splits.values() for path, _ in members]]
    parts = np.split(images, np.cumsum([len(members) for members in splits.values()])[:-1])
    labels = [np.array([label for _, label in members], np.int64) for members in splits.values()]
    arrays = dict(zip(splits, zip(parts, labels, strict=True), strict=True))
    shown = [f"{n:,} of {len(files):,} images: {what}" for what, n in changes.items()]
    notes = (
        *found.notes,
        *shown,
        *image_size.notes(sizes, fit, preprocess),
        *splitting.notes(splits, keys, folder),
    )
    for note in notes:
        print(f"{folder}: {note}", file=sys.stderr)
    at_decoding = fit.processor is not None
    return Contents(
        found.classes, arrays, notes, at_decoding, covered=not at_decoding and set(sizes) != {fit.size}
    )


def fitted(path: Path, fit: Fit | image_size.Size) -> NDArray[np.uint8] | str:
    """uint8 (H, W, 3), or what is wrong with the file; fit: how it gets its size, or the (width, height) that it covers.

    Raises BadInput as `fit` does.
    """
    fit = fit if isinstance(fit, Fit) else Fit(fit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about files that it reads all the same
        found = _attempt(partial(_read, fit=fit), path)
    return found if isinstance(found, str) else found.pixels


def _read(path: Path, fit: Fit) -> _Read:
    image, changes = decoding.decode(path)
    key = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    return _Read(fit(image), key, changes)


def _check_memory(folder: Path, count: int, width: int, height: int) -> None:
    needed, limit = count * width * height * 3, MEMORY_SHARE * memory_bytes()
    if needed > limit:
        what = f"{count:,} of {width} x {height} pixels take {needed / 1e9:.1f} GB"
        rule = f"images must fit in {100 * MEMORY_SHARE:.0f} % of memory, {limit / 1e9:.1f} GB"
        raise BadInput(
            f"{rule}, but {what}; give a smaller side, such as imagefolder:{folder}?size={min(width, height) // 2}"
        )


def _attempt(function: Callable[[Path], T], path: Path) -> T | str:
    try:
        return function(path)
    except BadInput:
        raise
    except Exception as error:  # Pillow raises several kinds
        return decoding.reason(error, path)


def _each(function: Callable[[Path], T], files: list[Path], text: str) -> Iterable[T]:
    """`function` of every file, on all CPUs, in order. Raises BadInput that counts the files with a fault, and names three."""
    console, faults = Console(stderr=True), []
    pool = ThreadPoolExecutor(cpus())  # Pillow lets other threads run
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `fitted`; the threads share it
            results = pool.map(partial(_attempt, function), files)
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
        raise BadInput(
            f"{rule}, but {len(faults)} of {len(files)} can't: {', '.join(faults[:3])}; mend or remove them"
        )
