"""Paths as a user writes them, on a command line, in a file, in an environment variable or in Python."""

import os
from pathlib import Path

from ablate.errors import BadInput, short_repr


def local_path(path: str | Path) -> Path:
    """Return a user's path with a leading `~` or `~user` expanded, which a shell leaves in `--out=~/x`.

    What is returned may be given again. A folder that is itself called `~` is `./~`. A file called `~draft`
    is taken as it is where it exists and no user has that name.

    Args:
        path: The path, relative to the working directory.

    Raises:
        BadInput: The path is empty, or its home folder is unknown.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise BadInput(f"a path must not be empty, nor have a zero byte, but got {short_repr(text)}")
    expanded = Path(os.path.expanduser(text))  # noqa: PTH111 - a Path forgets the ./ of ./~
    if not str(expanded).startswith("~"):
        return expanded
    if text.startswith("~") and not os.path.lexists(text):
        rule = "a path that begins with ~ must name a home folder that is known"
        raise BadInput(
            f"{rule}, but got {short_repr(text)}; write ./{short_repr(text)[1:-1]}, or the whole path"
        )
    return Path.cwd() / expanded
