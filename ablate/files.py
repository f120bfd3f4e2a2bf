"""Atomic writes: a file or a folder is complete or absent, even if several processes write it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file in one step, which a power cut cannot leave half done.

    Args:
        path: The file. Missing parent folders are made.
        content: All of its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}")  # unique: another process may write the same file now
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder in one step, at the end of a `with` block that fills it under another name beside it.

    Args:
        path: The folder, which must not exist. Missing parent folders are made.

    Yields:
        The folder to fill.

    Raises:
        OSError: It cannot be written, or another process has made it meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
