"""Atomic writes: a file is complete or absent, even if several processes write it."""

import os
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
