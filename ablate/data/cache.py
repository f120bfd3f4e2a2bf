"""Downloads a dataset once, checks it, and keeps it as one file in the user's cache folder.

A dataset comes from the first of its sources that answers. Whichever it is, the arrays must have the pinned
digests, if there are any; only then does the file get its name.
"""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ablate.errors import BadInput, write_error
from ablate.paths import local_path

log = logging.getLogger(__name__)
Arrays = dict[str, NDArray[np.uint8]]

# faults of the folder, and not of a source
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass
class Download:
    """A dataset that is downloaded.

    Attributes:
        name: Of the dataset, and of its file in the cache.
        sources: By name, in the order in which they are tried: each downloads into a folder and returns the
            arrays.
        sha256: The digest of each array, as uint8 in C order; None: the source has checked what it is from.
        needed_bytes: Free disk space that a download needs.
    """

    name: str
    sources: Mapping[str, Callable[[Path], Arrays]]
    sha256: Mapping[str, str | None]
    needed_bytes: int

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return cache() / f"{self.name}.npz"


def cache() -> Path:
    """Return the user's cache folder: ABLATE_CACHE, or `ablate` in that of platformdirs."""
    if given := os.environ.get("ABLATE_CACHE"):
        return local_path(given).absolute()
    import platformdirs  # a packed model runs without it

    return platformdirs.user_cache_path("ablate", appauthor=False).absolute()


def fetch(dataset: Download) -> Path:
    """Download a dataset, unless its file exists and is intact.

    Returns:
        The file.

    Raises:
        BadInput: No source has the dataset, or the cache folder cannot be written.
        WriteFailed: The disk is full or faulty.
    """
    path = dataset.path
    if _is_intact(dataset):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if not _is_intact(dataset):  # another process may have been faster
                _download(dataset)
    except OSError as error:
        room = f"{dataset.name} must fit into {str(path.parent)!r}, but: {error.strerror or error}"
        advice = "free some space, or set ABLATE_CACHE to another folder"
        raise write_error(error, f"{room}; {advice}") from None
    return path


def read(dataset: Download) -> Arrays:
    """Read the arrays of a dataset that was fetched. Their digests are not checked.

    Raises:
        BadInput: The file does not exist, or cannot be read.
    """
    path, advice = dataset.path, f"run `ablate data fetch {dataset.name}`"
    if not path.exists():
        raise BadInput(
            f"dataset {dataset.name!r} must be fetched once, but {str(path)!r} is not there; {advice}"
        )
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return {key: file[key] for key in dataset.sha256}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise BadInput(f"cannot read {str(path)!r}: {error}; {advice}") from None


def state(dataset: Download) -> object:
    """Return what changes when the file of a dataset is replaced or written; None where there is no file."""
    path = dataset.path
    if not path.exists():
        return None
    about = path.stat()
    return path, about.st_ino, about.st_size, about.st_mtime_ns


def check(arrays: Arrays, sha256: Mapping[str, str | None]) -> None:
    """Raise ValueError unless each array has its digest."""
    for key, expected in sha256.items():
        digest = hashlib.sha256(np.ascontiguousarray(arrays[key], np.uint8).data).hexdigest()
        if expected and digest != expected:
            raise ValueError(f"{key} must have sha256 {expected[:12]}, but got {digest[:12]}")


def _download(dataset: Download) -> None:
    name, folder = dataset.name, dataset.path.parent
    for stale in folder.glob(f".{name}-*"):  # of a process that was killed; this one holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    if (free := shutil.disk_usage(folder).free) < dataset.needed_bytes:
        needed = f"{dataset.needed_bytes / 1e6:.0f} MB are needed"
        raise OSError(errno.ENOSPC, f"{needed} and {free / 1e6:.0f} MB are free")
    faults = []
    for source, get in dataset.sources.items():
        log.warning("Fetching %s: %s", name, source)
        try:
            return _download_from(get, dataset)
        except Exception as error:  # each source fails in its own ways, and the next may do better
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__  # URLError has one
            faults.append(f"{source}: {' '.join(reason.split())}")
            log.warning("  %s", faults[-1])
    rule = f"{name} must come from a source that answers"
    raise BadInput(f"{rule}, but {'; '.join(faults)}; try again with a network")


def _download_from(get: Callable[[Path], Arrays], dataset: Download) -> None:
    path = dataset.path
    prefix = f".{dataset.name}-"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        arrays = get(Path(folder))
        check(arrays, dataset.sha256)
        with (Path(folder) / "whole.npz").open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            os.fsync(file.fileno())
        Path(file.name).replace(path)


def _is_intact(dataset: Download) -> bool:
    try:
        check(read(dataset), dataset.sha256)
    except ValueError:  # BadInput is one
        return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the context no other process downloads into this folder."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("Waiting for another process that writes into %r ...", str(folder))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
