"""Files that are whole or not there, whoever else writes them."""

import os
from pathlib import Path
from uuid import uuid4


def store(path: Path, content: bytes) -> None:
    """Write a file in one step that a power cut does not halve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{uuid4().hex}")  # another process may write the same file now
    try:
        with fresh.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
