"""Who writes into a run's folder: locks on its ledger, which others can see without taking any.

They are `fcntl`'s locks of an open file (F_OFD_SETLK), so they end with the process that holds them, however it ends, and
reach other machines on NFS. A driver locks the ledger from the claim of the folder to its end. The writer that it starts has
a lock of its own: after a driver is killed, it lives on for a few seconds.
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import IO, Literal, NamedTuple

from ablate.errors import BadInput

Role = Literal["driver", "writer"]
BEGIN: dict[Role, int] = {"driver": 0, "writer": 2**32}  # of the locked bytes; they need not exist
FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Owner(NamedTuple):
    """A process that holds a lock."""

    role: Role
    pid: int


def hold(path: Path, role: Role) -> IO[bytes] | None:
    """Lock a run's ledger, which is made where there is none, until the file is closed; None where another process holds it.

    Raises BadInput where the file system has no locks.
    """
    file = (path / "ledger.jsonl").open("ab")
    try:
        # as many bytes as the process's number, so that `owner` can tell it
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, BEGIN[role], os.getpid(), 0))
        return file
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError as error:
        file.close()
        mend = "put it on a local disk or on NFS"
        raise BadInput(
            f"a run must be on a file system with locks, but {str(path)!r} has none: {error.strerror}; {mend}"
        ) from None


def owner(path: Path, *roles: Role) -> Owner | None:
    """Who holds a lock on a run's ledger, in any role by default, asked without taking one; None where nobody is seen to."""
    try:
        with (path / "ledger.jsonl").open("rb") as file:
            for role in roles or BEGIN:
                asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, BEGIN[role], 2**32, 0)
                kind, _, _, length, _ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
                if kind != fcntl.F_UNLCK:
                    return Owner(role, length)
    except OSError:
        pass
    return None
