"""Who writes into a run's folder: locks that end with the process that holds them, however it ends.

The locks are on `.lock`, a file of their own beside the ledger. On Linux they are open file description
locks (F_OFD_SETLK): a reader asks who holds one without taking any, and they reach other machines on NFS.
`filelock` can do neither, so these are ours. Elsewhere they are those of `flock`: `owner` must take one for a
moment to see that nobody has it.

A driver holds its lock from the claim of the folder to its end. The writer that it starts has a lock of its
own, because it lives on for a few seconds after a driver is killed.
"""

import fcntl
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import IO, Literal, NamedTuple

from ablate.errors import BadInput, write_error

Role = Literal["driver", "writer"]
BEGIN: dict[Role, int] = {"driver": 0, "writer": 2**32}  # of the locked bytes; they need not exist
FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, pid
OPEN_FILE_LOCKS = sys.platform == "linux"
GLIMPSE_SECONDS = 1.0  # for another process that takes a lock only to see whether it is free


class Owner(NamedTuple):
    """A process that holds a lock; pid 0 where it is not known."""

    role: Role
    pid: int


def hold(path: Path, role: Role) -> IO[bytes] | None:
    """Lock a run's folder until the file is closed.

    Args:
        path: The folder, which must exist.
        role: Who locks it.

    Returns:
        The open lock file, which is made where there is none. None where another process holds the lock.

    Raises:
        BadInput: The folder cannot be written, or its file system has no locks.
        WriteFailed: The disk is full.
    """
    try:
        file = _file(path, role).open("ab")
    except OSError as error:
        rule = f"a run's folder must be writable to go on, but {str(path)!r}: {error.strerror}"
        raise write_error(error, f"{rule}; copy it to where it is") from None
    try:
        _lock(file, role)
        return file
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError as error:
        file.close()
        rule = f"a run must be on a file system with locks, but {str(path)!r} has none: {error.strerror}"
        raise BadInput(f"{rule}; put it on a local disk or on NFS") from None


def owner(path: Path, *roles: Role) -> Owner | None:
    """Return who holds a lock on a run's folder, None where nobody does.

    Args:
        path: The folder.
        roles: Whose locks are looked at; all by default.
    """
    for role in roles or BEGIN:
        try:
            with _file(path, role).open("rb") as file:
                if (pid := _holder(path, file, role)) is not None:
                    return Owner(role, pid)
        except OSError:  # no such file, or no locks
            continue
    return None


def _file(path: Path, role: Role) -> Path:
    return path / (".lock" if OPEN_FILE_LOCKS or role == "driver" else ".writer.lock")


def _lock(file: IO[bytes], role: Role) -> None:
    """Raises BlockingIOError or PermissionError where another process holds the lock."""
    if OPEN_FILE_LOCKS:  # as many bytes as the process id says, so that `owner` can read it off the lock
        request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, BEGIN[role], os.getpid(), 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
        return
    limit = time.monotonic() + GLIMPSE_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)


def _holder(path: Path, file: IO[bytes], role: Role) -> int | None:
    if OPEN_FILE_LOCKS:
        request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, BEGIN[role], 2**32, 0)
        kind, _, _, length, _ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, request))
        return None if kind == fcntl.F_UNLCK else int(length)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            return int(json.loads((path / "state.json").read_text(encoding="utf-8"))["pid"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0
