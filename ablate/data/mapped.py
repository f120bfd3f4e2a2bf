"""Images of a dataset that is larger than memory: decoded once into a file, of which rows are read as needed.

The file lies in the cache folder, and is memory-mapped: the operating system keeps in memory what fits. A
process that gets such images gets their path, and opens the file by itself.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.data import cache
from ablate.errors import BadInput, write_error
from ablate.files import write_atomic

log = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 (H, W, 3), contiguous.
        key: Equal for images that show the same.
        changes: How it differs from the file as it is stored, in a few words each.
    """

    pixels: NDArray[np.uint8]
    key: bytes
    changes: tuple[str, ...]


class MappedImages:
    """Some of the images of a file. Reads what is indexed, as an array of shape (N, H, W, 3) would give it.

    Args:
        path: Of the file, which holds uint8 (M, H, W, 3).
        size: (H, W).
        rows: Which of its images these are, (N,).
    """

    def __init__(self, path: Path, size: tuple[int, int], rows: NDArray[np.int64]) -> None:
        self.path, self.rows = path, rows
        self.shape = (len(rows), *size, 3)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """The images of a slice, an array of indices or an integer."""
        return self._images[self.rows[index]]

    def some(self, index: Any) -> "MappedImages":
        """The images of a slice or an array of indices, not read yet."""
        return MappedImages(self.path, (self.shape[1], self.shape[2]), self.rows[index])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_images"}  # not what is mapped

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        try:
            flat = np.memmap(self.path, np.uint8, "r")
            return np.asarray(flat).reshape(-1, *self.shape[1:])
        except (OSError, ValueError) as error:
            rule = f"images that are larger than memory must be in {str(self.path)!r} on each machine"
            advice = "put ABLATE_CACHE on a file system that all of them share, or give a smaller ?size"
            raise BadInput(f"{rule}, but: {error}; {advice}") from None


Images = NDArray[np.uint8] | MappedImages  # uint8 (N, H, W, 3)


def select(images: Images, index: Any) -> Images:
    """Take some of the images: of an array a copy or a view, of a file without reading them."""
    return images.some(index) if isinstance(images, MappedImages) else images[index]


def decoded_once(
    name: str,
    state: str,
    shape: tuple[int, int, int],
    smaller: str,
    decode: Callable[[], Iterable[Decoded]],
) -> tuple[MappedImages, list[bytes], Counter[str]]:
    """Decode images into a file of the cache folder, unless one is there.

    Args:
        name: Of the dataset and how its images are decoded: only the newest file of a name is kept.
        state: What changes with the dataset's files.
        shape: (N, H, W).
        smaller: What makes the images smaller, for the message.
        decode: Yields each image.

    Returns:
        The images, the key of each, and how often each change was made.

    Raises:
        BadInput: They do not fit on the disk, the cache folder cannot be written, or `decode` raises it.
        WriteFailed: The disk is full or faulty.
    """
    n, height, width = shape
    gb = n * height * width * 3 / 1e9
    prefix = hashlib.sha256(name.encode()).hexdigest()[:16]
    folder = cache.cache() / "images"
    path = folder / f"{prefix}-{hashlib.sha256(f'{state} {shape}'.encode()).hexdigest()[:16]}.uint8"
    about = path.with_suffix(".json")  # is written last
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with cache.locked(folder):
            if not about.exists():
                for old in folder.glob(f"{prefix}-*"):
                    old.unlink()
                if (free := shutil.disk_usage(folder).free / 1e9) < 1.05 * gb:
                    raise OSError(errno.ENOSPC, f"{free:.1f} GB are free")
                log.warning("Decoding images into %s, %.1f GB: they are larger than memory allows", path, gb)
                _write(path, about, decode())
        content = json.loads(about.read_text(encoding="utf-8"))
    except OSError as error:
        room = f"{n:,} images of {width} x {height} pixels, {gb:.1f} GB, must fit into {str(folder)!r}"
        advice = (
            f"give a smaller side, such as {smaller}, free some space, or set ABLATE_CACHE to another folder"
        )
        raise write_error(error, f"{room}, but: {error.strerror or error}; {advice}") from None
    images = MappedImages(path, (height, width), np.arange(n))
    return images, [bytes.fromhex(key) for key in content["keys"]], Counter(content["changes"])


def _write(path: Path, about: Path, images: Iterable[Decoded]) -> None:
    keys, changes = list[str](), Counter[str]()
    try:
        with path.open("wb") as file:
            for each in images:
                file.write(each.pixels.data)
                keys.append(each.key.hex())
                changes.update(each.changes)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    write_atomic(about, json.dumps({"keys": keys, "changes": changes}).encode())
