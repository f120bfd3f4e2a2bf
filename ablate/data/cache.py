"""Downloads a dataset once, checks it, and keeps it as one file in the user's cache folder.

CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) comes from the first of `SOURCES` that
answers. Whichever it is, pixels and labels must have the pinned digests; only then is the file given its name.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ablate.data.cifar10 import SOURCES, Arrays
from ablate.errors import BadInput, unknown, write_error

DATASETS = {
    "cifar10": "45,000 training, 5,000 validation and 10,000 test images: all of CIFAR-10, 10 classes in balance"
}
SHA256 = {  # in the official order of the images
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
NEEDED_BYTES = 600_000_000  # the archive, unpacked beside it, and the result
DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)  # faults of the folder, not of a source


def fetch(name: str) -> Path:
    """The file of a dataset, downloaded unless it is there and whole. Raises BadInput when no source has it."""
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    path = cached(name)
    if _is_whole(name):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if not _is_whole(name):  # another process may have been faster
                _download_to(path)
    except OSError as error:
        mend = "free some space, or set ABLATE_CACHE to another folder"
        raise write_error(
            error, f"{name} must fit into {str(path.parent)!r}, but: {error.strerror or error}; {mend}"
        ) from None
    return path


def read(name: str) -> Arrays:
    """A fetched dataset, its digests not checked. Raises BadInput when it is not there, or cannot be read."""
    path = cached(name)
    if not path.exists():
        raise BadInput(
            f"dataset {name!r} must be fetched once, but {str(path)!r} is not there; run `ablate data fetch {name}`"
        )
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return {key: file[key] for key in SHA256}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise BadInput(f"cannot read {str(path)!r}: {error}; run `ablate data fetch {name}`") from None


def cached(name: str) -> Path:
    """Where a fetched dataset is kept."""
    return cache() / f"{name}.npz"


def cache() -> Path:
    """The user's cache folder: ABLATE_CACHE, or ablate/ in XDG_CACHE_HOME or ~/.cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablate"
    return Path(os.environ.get("ABLATE_CACHE") or usual).expanduser().absolute()


def check(arrays: Arrays) -> None:
    """Raises ValueError unless these are the pixels and labels of CIFAR-10, in the official order."""
    for key, expected in SHA256.items():
        found = hashlib.sha256(np.ascontiguousarray(arrays[key], np.uint8).data).hexdigest()
        if found != expected:
            raise ValueError(f"{key} must have sha256 {expected[:12]}, but got {found[:12]}")


def _download_to(path: Path) -> None:
    for stale in path.parent.glob(f".{path.stem}-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    if (free := shutil.disk_usage(path.parent).free) < NEEDED_BYTES:
        raise OSError(
            errno.ENOSPC, f"{NEEDED_BYTES / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
        )
    faults = []
    for source, get in SOURCES.items():
        print(f"Fetching {path.stem}: {source}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.stem}-", ignore_cleanup_errors=True
        ) as folder:
            try:
                arrays = get(Path(folder))
                check(arrays)
                with (Path(folder) / "whole.npz").open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                    os.fsync(file.fileno())
                Path(file.name).replace(path)
                return
            except Exception as error:  # each source fails in its own ways, and the next may do better
                if isinstance(error, OSError) and error.errno in DISK:
                    raise
                reason = str(getattr(error, "reason", error)) or type(error).__name__  # URLError has one
                faults.append(f"{source}: {' '.join(reason.split())}")
                print(f"  {faults[-1]}", file=sys.stderr, flush=True)
    raise BadInput(
        f"{path.stem} must come from a source that answers, but {'; '.join(faults)}; try again with a network"
    )


def _is_whole(name: str) -> bool:
    try:
        check(read(name))
    except ValueError:  # BadInput is one
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within: no other process fetches into this folder."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"Waiting for another process that fetches into {str(folder)!r} ...",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
