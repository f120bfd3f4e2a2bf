"""A run's folder belongs to one study: claimed once, before anything is loaded, and left as it was if nothing begins."""

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
from ablate.runs.locks import hold, owner
from ablate.runs.run import RUNS, Run, driven

FILES = (
    "study.toml",
    "provenance.json",
    "state.json",
    ".writer.lock",
    "ledger.jsonl",
)  # the ledger last: it is the lock
FOLDERS = ("predictions", "weights", "tables", "figures", ".tune")
LETTERS = 50  # of a study's name in that of its folder: 255 bytes are the most that a file system takes
PATIENCE_SECONDS = 30.0  # for the writer of a driver that was killed


@contextmanager
def claimed(out: str | Path | None, name: str) -> Iterator[Path]:
    """Within: a run's folder that is this process's alone.

    If the study does not begin, because of BadInput or of any exception before it has a state file, what was made is
    removed.

    Args:
        out: The folder, new or empty; None: a new one below runs/, called by the time and `name`.
        name: Of the study or its space, as part of a file's name.

    Yields:
        The absolute path of the folder.

    Raises:
        BadInput: `out` is neither new nor empty, or cannot be written, or another study has begun in it.
    """
    path, made, lock = _claim(Path(out).absolute()) if out else _claim_new(name)
    with lock:
        try:
            yield path
        except BaseException as error:
            if isinstance(error, BadInput) or not (path / "state.json").exists():
                _leave(path, made, lock)
            raise


@contextmanager
def reclaimed(run: Run) -> Iterator[None]:
    """Within: a run that there is already is this process's alone.

    Raises BadInput, naming the owner, when a driver has the run, here or on another host.
    """
    if run.driven_elsewhere or (lock := hold(run.path, "driver")) is None:
        raise driven(run)
    with lock:
        limit = time.monotonic() + PATIENCE_SECONDS
        while (writer := owner(run.path, "writer")) and time.monotonic() < limit:
            time.sleep(0.05)
        if writer:
            who = f"process {writer.pid}, the writer of a driver that ended,"
            raise BadInput(
                f"RUN must have no live writer, but {str(run.path)!r} has: {who} goes on; wait a minute, or stop it"
            )
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
    """The folder, those of it and above it that were made, and the lock that makes it ours."""
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
    """Make a folder and those above it that are missing, under another name until it is locked: who makes it has it.

    Raises OSError where another study made one of them meanwhile.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    if not missing:
        raise FileExistsError(errno.EEXIST, "another study made it")
    if (
        ".." in path.relative_to(missing[0]).parts
    ):  # leads out of what is made, to a folder that nobody looked at
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
        if not os.path.samestat(os.fstat(lock.fileno()), (path / "ledger.jsonl").stat()):
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
    found = owner(path)
    return (
        f"another study, process {found.pid}, has begun in {str(path)!r}"
        if found and found.pid
        else f"another study is in {str(path)!r}"
    )


def _check_vacant(path: Path) -> None:
    """Raises BadInput where a folder holds anything but the empty ledger of a study that was killed before it began."""
    if not stat.S_ISDIR(path.stat().st_mode):
        raise BadInput(
            f"--out must be a new or an empty folder, but {str(path)!r} is no folder; give another"
        )
    if any(file.name != "ledger.jsonl" or file.stat().st_size for file in path.iterdir()):
        what = "holds another run" if (path / "study.toml").exists() else "is not an empty folder"
        raise BadInput(f"--out must be a new or an empty folder, but {str(path)!r} {what}; give another")


def _leave(path: Path, made: list[Path], lock: IO[bytes]) -> None:
    """Remove what a study that came to nothing made; what is not its own stays, and the folder with it."""
    for name in FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)
    *others, ledger = FILES
    with suppress(OSError):  # gone, or something else is in it
        for name in others:
            (path / name).unlink(missing_ok=True)
        if made and {file.name for file in path.iterdir()} == {
            ledger
        }:  # no other study shall find it half removed
            path = path.rename(_hidden(path))
            lock.close()  # NFS keeps a file that is open, and its folder
        (path / ledger).unlink()
        for folder in (path, *made[-2::-1]) if made else ():
            folder.rmdir()
