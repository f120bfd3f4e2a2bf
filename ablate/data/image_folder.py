"""A user's own images: a folder in the layout of torchvision's ImageFolder, decoded to uint8 at one size.

`folder_layout` decides which files and classes a folder has, `decoding` which pixels a file shows,
`image_size` the size, and `splitting` what is trained on.
"""

import hashlib
import logging
import re
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

from ablate.config.builtin import IMAGEFOLDER
from ablate.data import decoding, folder_walk, image_size, splitting
from ablate.data.dataset import Dataset, Split, digest_of
from ablate.data.folder_layout import SPLITS, Files, layout
from ablate.data.image_size import Fit
from ablate.errors import BadInput
from ablate.hardware import cpus, memory_bytes

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

log = logging.getLogger(__name__)
T = TypeVar("T")
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W, 3) and labels (N,)

MEMORY_SHARE = 0.3  # of what this process may use; Ray's object store, where the images travel, has as much


class Contents(NamedTuple):
    """The decoded images of a folder.

    Attributes:
        classes: Names, in the order of the labels.
        arrays: Images and labels of train, validation and test.
        notes: What a user should know, a line each.
        at_decoding: Whether the model's image processor resized and cropped the images.
        covered: Whether images were scaled until they cover one size, and cropped in the middle.
        test_keys: A hash of each test image at its own size.
    """

    classes: list[str]
    arrays: dict[str, Arrays]
    notes: tuple[str, ...]
    at_decoding: bool
    covered: bool
    test_keys: tuple[str, ...]


class _Decoded(NamedTuple):
    pixels: NDArray[np.uint8]  # (H, W, 3)
    key: bytes  # equal for images that show the same
    changes: tuple[str, ...]


def load(name: str, preprocess: Optional["Preprocess"] = None) -> Dataset:
    """Load the dataset "imagefolder:PATH", or "imagefolder:PATH?size=SIDE".

    Args:
        name: With an absolute path.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The images at one size, and their digest.

    Raises:
        BadInput: The size is out of range, or the folder is refused by `contents`.
    """
    folder, side = _folder_and_side(name)
    if side and not 8 <= int(side) <= 4096:
        rule = "8 <= size <= 4096 must hold"
        raise BadInput(f"{rule}, but got ?size={side}; give the side of an image in pixels")
    decoded = contents(Path(folder), int(side) if side else None, preprocess)
    train, validation, test = (Split(*decoded.arrays[split]) for split in SPLITS)
    digest = digest_of((train, validation, test))
    if decoded.at_decoding:  # images that are not yet resized and cropped may have equal pixels
        digest = hashlib.sha256(f"{digest} as the model takes them".encode()).hexdigest()
    return Dataset(
        decoded.classes,
        train,
        validation,
        test,
        digest,
        decoded.notes,
        decoded.at_decoding,
        decoded.covered,
        decoded.test_keys,
    )


def state(name: str) -> str:
    """Return what changes with the files of the dataset "imagefolder:PATH"."""
    return folder_walk.state(Path(_folder_and_side(name)[0]))


def read(folder: Path, side: int | None = None) -> tuple[list[str], dict[str, Arrays]]:
    """Return the classes and arrays of `contents`. Raises what `contents` raises."""
    return contents(folder, side)[:2]


def contents(folder: Path, side: int | None = None, preprocess: Optional["Preprocess"] = None) -> Contents:
    """Decode all images of a folder to one size. The notes are printed on standard error as well.

    Args:
        folder: In a layout that `folder_layout` knows.
        side: Of the square images to make, in pixels; None: by the rule of `image_size`.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The classes, and of each split images, uint8 (N, H, W, 3), and labels, int64 (N,).

    Raises:
        BadInput: The folder has another layout, files are no images, the images do not fit in memory, or the
            processor does not bring them to one size.
    """
    listed = layout(folder)
    files = _paths(listed.files)
    sizes = list(_each(decoding.size, files, "Looking at images"))
    fit = image_size.fit(sizes, side, preprocess)
    _check_memory(folder, len(files), *fit.size)
    expected = splitting.split(listed, {path: bytes(path) for path in files})  # unless there are copies
    files = _paths(expected)
    images, keys, changes = _decode(files, fit)
    splits = splitting.split(listed, keys)
    if splits != expected:
        rows = {path: i for i, path in enumerate(files)}
        images = images[[rows[path] for path in _paths(splits)]]
    notes = (
        *listed.notes,
        *(f"{n:,} of {len(files):,} images: {change}" for change, n in changes.items()),
        *image_size.notes(sizes, fit, preprocess),
        *splitting.notes(splits, keys, folder),
    )
    for note in notes:
        log.warning("%s: %s", folder, note)
    at_decoding = fit.processor is not None
    covered = not at_decoding and set(sizes) != {fit.size}
    test_keys = tuple(keys[path].hex() for path, _ in splits["test"])
    return Contents(listed.classes, _arrays(images, splits), notes, at_decoding, covered, test_keys)


def fitted(path: Path, fit: Fit | image_size.Size) -> NDArray[np.uint8] | str:
    """Decode one image file.

    Args:
        path: Of the file.
        fit: How the image gets its size; or the (width, height) that it is scaled to cover.

    Returns:
        uint8 (H, W, 3), or what is wrong with the file.

    Raises:
        BadInput: The processor of `fit` does not bring images of this size to its own.
    """
    fit = fit if isinstance(fit, Fit) else Fit(fit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about files that it reads all the same
        decoded = _attempt(partial(_decoded, fit=fit), path)
    return decoded if isinstance(decoded, str) else decoded.pixels


def _folder_and_side(name: str) -> tuple[str, str]:
    """The path and the side of "imagefolder:PATH?size=SIDE"; without one, ""."""
    parts = re.fullmatch(r"(.*?)(?:\?size=(\d+))?", name.removeprefix(IMAGEFOLDER), re.DOTALL)
    assert parts
    return parts[1], parts[2] or ""


def _paths(splits: dict[str, Files]) -> list[Path]:
    return [path for members in splits.values() for path, _ in members]


def _decode(files: list[Path], fit: Fit) -> tuple[NDArray[np.uint8], dict[Path, bytes], Counter[str]]:
    """Pixels (N, H, W, 3), a key of each file, equal for equal pixels, and how often each change was made."""
    width, height = fit.size
    images = np.empty((len(files), height, width, 3), np.uint8)  # (N, H, W, 3)
    keys, changes = dict[Path, bytes](), Counter[str]()
    for i, decoded in enumerate(_each(partial(_decoded, fit=fit), files, "Decoding")):
        images[i], keys[files[i]] = decoded.pixels, decoded.key
        changes.update(decoded.changes)
    return images, keys, changes


def _decoded(path: Path, fit: Fit) -> _Decoded:
    image, changes = decoding.decode(path)
    key = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    return _Decoded(fit(image), key, changes)


def _arrays(images: NDArray[np.uint8], splits: dict[str, Files]) -> dict[str, Arrays]:
    ends = np.cumsum([len(members) for members in splits.values()])
    labels = [np.array([label for _, label in members], np.int64) for members in splits.values()]
    return dict(zip(splits, zip(np.split(images, ends[:-1]), labels, strict=True), strict=True))


def _check_memory(folder: Path, count: int, width: int, height: int) -> None:
    needed, limit = count * width * height * 3, MEMORY_SHARE * memory_bytes()
    if needed > limit:
        what = f"{count:,} of {width} x {height} pixels take {needed / 1e9:.1f} GB"
        rule = f"images must fit in {100 * MEMORY_SHARE:.0f} % of memory, {limit / 1e9:.1f} GB"
        smaller = f"imagefolder:{folder}?size={min(width, height) // 2}"
        raise BadInput(f"{rule}, but {what}; give a smaller side, such as {smaller}")


def _attempt(function: Callable[[Path], T], path: Path) -> T | str:
    try:
        return function(path)
    except BadInput:
        raise
    except Exception as error:  # Pillow raises several kinds
        return decoding.reason(error, path)


def _each(function: Callable[[Path], T], files: list[Path], text: str) -> Iterable[T]:
    """`function` of every file, on all CPUs, in order.

    Raises BadInput after the last file, with the number of files at fault, and the names of three.
    """
    console, faults = Console(stderr=True), []
    pool = ThreadPoolExecutor(cpus())  # Pillow releases the GIL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `fitted`; the threads share the filter
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
        wrong = f"{len(faults)} of {len(files)} can't: {', '.join(faults[:3])}"
        raise BadInput(f"{rule}, but {wrong}; mend or remove them")
