"""Where a Ray that is started here keeps its sockets and logs: their paths must be short and ASCII, and TMPDIR need not be."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of an address of AF_UNIX
BELOW = len(
    "/session_2026-01-01_00-00-00_000000_1234567/sockets/dash_TaskEventsHead"
)  # the longest that Ray adds
SHORT = Path("/tmp/ray")  # Ray's own choice where nothing is set


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Within, Ray may be started: the folder that RAY_TMPDIR or TMPDIR gives; where it won't do, /tmp/ray, as stderr is told.

    Processes of Ray have sockets of their own in TMPDIR: within, one that will not do is /tmp.
    """
    given = {name: Path(os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ}
    faults = {name: why for name, folder in given.items() if (why := _fault(folder))}
    for name, why in faults.items():
        if name == "TMPDIR" and sys.platform == "darwin":  # it is always long there, and Ray has /tmp
            continue
        print(
            f"{name} {why}, so Ray keeps its files in {str(SHORT)!r}: {str(given[name])!r}", file=sys.stderr
        )
    first = next(iter(given), None)
    kept = {name: os.environ[name] for name in faults}
    os.environ.update(dict.fromkeys(faults, str(SHORT.parent)))
    try:
        yield SHORT if first is None or first in faults else given[first] / "ray"
    finally:
        os.environ.update(kept)


def room(folder: Path) -> str:
    """What is free where a folder is or would be, and how to have another one."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 1e6
    return f"its files are in {str(folder)!r}, where {free:,.0f} MB are free; TMPDIR or RAY_TMPDIR names another folder"


def _fault(folder: Path) -> str:
    """Why Ray cannot keep its files in a folder; "" where it can."""
    if not folder.is_absolute():
        return "is not an absolute path"
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return "is no folder that can be written"
    if not str(folder).isascii():
        return "has letters that are not ASCII"
    longest = len(os.fsencode(folder / "ray")) + BELOW
    return (
        f"makes the paths of sockets {longest} bytes long, and {SOCKET_BYTES} are the most"
        if longest > SOCKET_BYTES
        else ""
    )
