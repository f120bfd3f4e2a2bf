"""Claims a run's folder for one study. The folder is left as it was if the study does not begin."""

import errno
import itertools
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from ablate.errors import BadInput
from ablate.paths import local_path
from ablate.runs.locks import hold, owner
from ablate.runs.run import RUNS, Run, driven

LOCK = ".lock"
FILES = ("study.toml", "provenance.json", "state.json", "ledger.jsonl", ".writer.lock", LOCK)  # the lock last
FOLDERS = ("predictions", "weights", "tables", "figures", ".tune")
LETTERS = 50  # of the study's name in the name of its folder: file systems take 255 bytes at most
PATIENCE_SECONDS = 30.0  # for the writer of a driver that was killed


@contextmanager
def claimed(out: str | Path | None, name: str) -> Iterator[Path]:
    """Claim a run's folder for this process for as long as the context lasts.

    The study has begun once there is a state file. What was made is removed after BadInput, and after any
    exception before the study has begun.

    Args:
        out: The folder, new or empty; None: a new one below runs/, called by the time and `name`.
        name: Of the study or its space, as part of a file's name.

    Yields:
        The absolute path of the folder.

    Raises:
        BadInput: `out` is neither new nor empty, or cannot be written, or another study has begun in it.
    """
    path, made, lock = _claim(local_path(out).absolute()) if out is not None else _claim_new(name)
    with lock:
        try:
            yield path
        except BaseException as error:
            if isinstance(error, BadInput) or not (path / "state.json").exists():
                _leave(path, made, lock)
            raise


@contextmanager
def reclaimed(run: Run) -> Iterator[None]:
    """Claim the folder of an existing run for this process for as long as the context lasts.

    Args:
        run: The run.

    Raises:
        BadInput: A driver has the run, here or on another host; the message names it.
    """
    if run.driven_elsewhere or (lock := hold(run.path, "driver")) is None:
        raise driven(run)
    with lock:
        limit = time.monotonic() + PATIENCE_SECONDS
        while (writer := owner(run.path, "writer")) and time.monotonic() < limit:
            time.sleep(0.05)
        if writer:
            rule = f"RUN must have no live writer, but {str(run.path)!r} has"
            who = f"process {writer.pid}, the writer of a driver that ended, goes on"
            raise BadInput(f"{rule}: {who}; wait a minute, or stop it")
        yield


def _claim_new(name: str) -> tuple[Path, list[Path], IO[bytes]]:
    """A folder below runs/ that nobody else made."""
    first = RUNS.absolute() / f"{datetime.now():%Y%m%d-%H%M%S}-{name[:LETTERS]}"
    for number in itertools.count(1):
        path = first if number == 1 else first.with_name(f"{first.name}-{number}")
        if os.path.lexists(path):
            continue
        try:
            path, made, lock = _claim(path)
        except BadInput:
            if os.path.lexists(path):  # another study was faster
                continue
            raise
        if path in made:
            return path, made, lock
        lock.close()
    raise AssertionError


def _claim(path: Path) -> tuple[Path, list[Path], IO[bytes]]:
    """Return the folder, the folders that were made for it (itself and those above), and its lock."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        rule = "--out must be a path in UTF-8, as Ray asks for"
        raise BadInput(f"{rule}, but got {str(path)!r}; give another") from None
    for attempt in range(100):
        try:
            return (path, [], _lock(path)) if path.exists() else (path, *_make(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY) and attempt < 99:
                continue  # another study has just removed or made it
            rule = "--out must be a folder that can be written"
            raise BadInput(f"{rule}, but {str(path)!r}: {error.strerror}; give another") from None
    raise AssertionError


def _make(path: Path) -> tuple[list[Path], IO[bytes]]:
    """Make a folder and the missing ones above it. They have another name until they are locked.

    Raises OSError where another study made one of them meanwhile.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    if not missing:
        raise FileExistsError(errno.EEXIST, "another study made it")
    if ".." in path.relative_to(missing[0]).parts:  # leads to a folder that was not looked at
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    hidden = _hidden(missing[0])
    try:
        hidden.mkdir()
        inner = hidden / path.relative_to(missing[0])
        inner.mkdir(parents=True, exist_ok=True)
        lock = _hold(inner)
        try:
            hidden.rename(missing[0])
        except OSError:
            lock.close()
            raise
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return missing, lock


def _hidden(path: Path) -> Path:
    return path.with_name(f".ablate-{secrets.token_hex(8)}")


def _lock(path: Path) -> IO[bytes]:
    """The lock of a vacant folder."""
    _check_vacant(path)
    lock = _hold(path)
    try:
        _check_vacant(path)  # no other study can fill it now
        if not os.path.samestat(os.fstat(lock.fileno()), (path / LOCK).stat()):
            raise FileNotFoundError(errno.ENOENT, "another study removes it")
        return lock
    except BaseException:
        lock.close()
        raise


def _hold(path: Path) -> IO[bytes]:
    if (lock := hold(path, "driver")) is None:
        raise BadInput(f"--out must be a new or an empty folder, but {_begun(path)}; give another")
    return lock


def _begun(path: Path) -> str:
    holder = owner(path)
    if holder and holder.pid:
        return f"another study, process {holder.pid}, has begun in {str(path)!r}"
    return f"another study is in {str(path)!r}"


def _check_vacant(path: Path) -> None:
    """Raise BadInput where a folder holds more than what a study leaves that was killed before it began."""
    if not stat.S_ISDIR(path.stat().st_mode):
        raise BadInput(
            f"--out must be a new or an empty folder, but {str(path)!r} is no folder; give another"
        )
    empty = {LOCK, "ledger.jsonl"}  # versions before 0.2 locked the ledger
    if any(file.name not in empty or file.stat().st_size for file in path.iterdir()):
        what = "holds another run" if (path / "study.toml").exists() else "is not an empty folder"
        raise BadInput(f"--out must be a new or an empty folder, but {str(path)!r} {what}; give another")


def _leave(path: Path, made: list[Path], lock: IO[bytes]) -> None:
    """Remove what a study made that did not begin. Other files stay, and the folder with them."""
    for name in FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)
    with suppress(OSError):  # gone, or something else is in it
        for name in FILES[:-1]:
            (path / name).unlink(missing_ok=True)
        if made and {file.name for file in path.iterdir()} == {LOCK}:
            path = path.rename(_hidden(path))  # so that no other study finds it half removed
            lock.close()  # NFS keeps a file that is open, and its folder
        (path / LOCK).unlink()
        for folder in (path, *made[-2::-1]) if made else ():
            folder.rmdir()
