"""Decodes listed images to uint8 arrays of one size, in splits: files of a folder, or rows of a table.

`decoding` decides which pixels a file shows, `image_size` the size, and `splitting` what is trained on.
"""

import hashlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ablate.data import decoding, image_size, mapped, splitting
from ablate.data.dataset import Dataset, Split, digest_of
from ablate.data.decoding import Source
from ablate.data.folder_layout import SPLITS, Files, Layout
from ablate.data.image_size import Fit
from ablate.data.mapped import Decoded, Images
from ablate.errors import BadInput
from ablate.hardware import cpus, memory_bytes

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

log = logging.getLogger(__name__)
T = TypeVar("T")
Arrays = tuple[Images, NDArray[np.int64]]  # images (N, H, W, 3) and labels (N,)
Read = Callable[[Path], Source]  # how an image is read by its path

# Of what this process may use; Ray's object store, where the images travel, has as much. Larger ones are
# decoded into a file.
MEMORY_SHARE = 0.3
PENDING = 1000  # images that are decoded ahead


class Contents(NamedTuple):
    """Decoded images.

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


def dataset(contents: Contents) -> Dataset:
    """Return the dataset of decoded images, with its digest."""
    train, validation, test = (Split(*contents.arrays[split]) for split in SPLITS)
    digest = digest_of((train, validation, test))
    if contents.at_decoding:  # images that are not yet resized and cropped may have equal pixels
        digest = hashlib.sha256(f"{digest} as the model takes them".encode()).hexdigest()
    return Dataset(
        contents.classes,
        train,
        validation,
        test,
        digest,
        contents.notes,
        contents.at_decoding,
        contents.covered,
        contents.test_keys,
    )


def decoded(
    listed: Layout,
    name: str,
    side: int | None,
    preprocess: Optional["Preprocess"],
    state: Callable[[], str],
    read: Read = lambda path: path,
    root: Path | None = None,
) -> Contents:
    """Decode all images that are listed to one size. The notes are printed on standard error as well.

    Args:
        listed: The classes, and the images of each split.
        name: Of the dataset, for the notes.
        side: Of the square images to make, in pixels; None: by the rule of `image_size`.
        preprocess: What the model's image processor does, where a model is known.
        state: Returns what changes with the images, for those that are larger than memory.
        read: Returns an image's file, or its bytes.
        root: The paths in the notes are relative to it; None: as they are.

    Returns:
        The classes, and of each split images, uint8 (N, H, W, 3), and labels, int64 (N,).

    Raises:
        BadInput: The size is out of range, files are no images, the images fit neither in memory nor on the
            disk, or the processor does not bring them to one size.
    """
    if side is not None and not 8 <= side <= 4096:
        rule = "8 <= size <= 4096 must hold"
        raise BadInput(f"{rule}, but got ?size={side}; give the side of an image in pixels")
    files = _paths(listed.files)
    sizes = list(_each(decoding.size, files, read, "Looking at images"))
    fit = image_size.fit(sizes, side, preprocess)
    expected = splitting.split(listed, {path: bytes(path) for path in files})  # unless there are copies
    files = _paths(expected)
    images, keys, changes = _decode(files, fit, read, f"{name} {fit}", state)
    splits = splitting.split(listed, keys)
    if splits != expected:
        rows = {path: i for i, path in enumerate(files)}
        images = mapped.select(images, np.array([rows[path] for path in _paths(splits)]))
    notes = (
        *listed.notes,
        *(f"{n:,} of {len(files):,} images: {change}" for change, n in changes.items()),
        *image_size.notes(sizes, fit, preprocess),
        *splitting.notes(splits, keys, root or Path()),
    )
    for note in notes:
        log.warning("%s: %s", name, note)
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
        result = _attempt(partial(_decoded, fit=fit), lambda path: path, path)
    return result if isinstance(result, str) else result.pixels


def _paths(splits: dict[str, Files]) -> list[Path]:
    return [path for members in splits.values() for path, _ in members]


def _decode(
    files: list[Path], fit: Fit, read: Read, name: str, state: Callable[[], str]
) -> tuple[Images, dict[Path, bytes], Counter[str]]:
    """Pixels (N, H, W, 3), a key of each file, equal for equal pixels, and how often each change was made."""

    def decode() -> Iterable[Decoded]:
        return _each(partial(_decoded, fit=fit), files, read, "Decoding")

    width, height = fit.size
    shape = (len(files), height, width)
    if math.prod(shape) * 3 > MEMORY_SHARE * memory_bytes():
        order = hashlib.sha256("".join(map(str, files)).encode()).hexdigest()
        smaller = f"?size={min(fit.size) // 2}"
        kept, found, changes = mapped.decoded_once(name, f"{state()} {order}", shape, smaller, decode)
        return kept, dict(zip(files, found, strict=True)), changes
    images, keys, changes = np.empty((*shape, 3), np.uint8), dict[Path, bytes](), Counter[str]()
    for i, each in enumerate(decode()):
        images[i], keys[files[i]] = each.pixels, each.key
        changes.update(each.changes)
    return images, keys, changes


def _decoded(source: Source, fit: Fit) -> Decoded:
    image, changes = decoding.decode(source)
    key = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    return Decoded(np.ascontiguousarray(fit(image)), key, changes)


def _arrays(images: Images, splits: dict[str, Files]) -> dict[str, Arrays]:
    arrays, start = dict[str, Arrays](), 0
    for split, members in splits.items():
        own = mapped.select(images, slice(start, start + len(members)))
        arrays[split] = own, np.array([label for _, label in members], np.int64)
        start += len(members)
    return arrays


def _attempt(function: Callable[[Source], T], read: Read, path: Path) -> T | str:
    source: Source = b""
    try:
        return function(source := read(path))
    except BadInput:
        raise
    except Exception as error:  # Pillow raises several kinds
        return decoding.reason(error, source)


def _each(function: Callable[[Source], T], files: list[Path], read: Read, text: str) -> Iterable[T]:
    """`function` of every file, on all CPUs, in order.

    Raises BadInput after the last file, with the number of files at fault, and the names of three.
    """
    console, faults = Console(stderr=True), []
    pool = ThreadPoolExecutor(cpus())  # Pillow releases the GIL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `fitted`; the threads share the filter
            results = _in_order(pool, partial(_attempt, function, read), files)
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


def _in_order(pool: ThreadPoolExecutor, function: Callable[[Path], T], files: list[Path]) -> Iterator[T]:
    """`pool.map`, which alone would decode all images before the first is written."""
    for i in range(0, len(files), PENDING):
        yield from pool.map(function, files[i : i + PENDING])
