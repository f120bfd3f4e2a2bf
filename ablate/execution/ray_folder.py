"""Where a Ray that is started here keeps its sockets and logs.

The paths of sockets must be short and ASCII, which those in TMPDIR need not be.
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of an address of AF_UNIX
LONGEST = "/session_2026-01-01_00-00-00_000000_1234567/sockets/dash_TaskEventsHead"  # that Ray appends
SHORT = Path("/tmp/ray")  # Ray's own choice where nothing is set


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Choose the folder of a Ray that starts in the `with` block: of RAY_TMPDIR or TMPDIR, else /tmp/ray.

    A folder that Ray cannot use is replaced by /tmp/ray, with a warning. Processes of Ray keep sockets of
    their own in TMPDIR, so within the block such a TMPDIR is /tmp.

    Yields:
        The folder.
    """
    given = {name: Path(os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ}
    faults = {name: fault for name, folder in given.items() if (fault := folder_fault(folder))}
    for name, fault in faults.items():
        if name == "TMPDIR" and sys.platform == "darwin":  # it is always long there, and Ray takes /tmp
            continue
        consequence = f"so Ray keeps its files in {str(SHORT)!r}"
        log.warning("%s %s, %s: %r", name, fault, consequence, str(given[name]))
    first = next(iter(given), None)
    originals = {name: os.environ[name] for name in faults}
    os.environ.update(dict.fromkeys(faults, str(SHORT.parent)))
    try:
        yield SHORT if first is None or first in faults else given[first] / "ray"
    finally:
        os.environ.update(originals)


def free_space(folder: Path) -> str:
    """For an error message: the free space where a folder is or would be, and how to choose another one."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e6
    where = f"its files are in {str(folder)!r}, where {free:,.0f} MB are free"
    return f"{where}; TMPDIR or RAY_TMPDIR names another folder"


def home_fault(error: Exception) -> str:
    """Say that Ray did not start because it cannot keep its key in the user's home folder; "" where it can.

    Args:
        error: What `ray.init` raised.
    """
    home = os.environ.get("HOME")
    if not home or not isinstance(error, OSError) or not str(error.filename or "").startswith(home):
        return ""
    rule = f"HOME must be a folder that can be written, since Ray keeps a key there, but is {home!r}"
    return f"{rule} ({error.strerror}: {str(error.filename)!r}); set HOME to another folder"


def folder_fault(folder: Path) -> str:
    """Return why Ray cannot keep its files in a folder; "" where it can."""
    if not folder.is_absolute():
        return "is not an absolute path"
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return "is no folder that can be written"
    if not str(folder).isascii():
        return "has letters that are not ASCII"
    longest = len(os.fsencode(folder / "ray")) + len(LONGEST)
    if longest > SOCKET_BYTES:
        return f"makes the paths of sockets {longest} bytes long, and {SOCKET_BYTES} are the most"
    return ""
