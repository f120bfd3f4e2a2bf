"""The log of a run: what its drivers had to say, with the time, for who was not there to read it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _LogFile(logging.FileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # on a full disk the study has greater worries
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be written is lost."""


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write this package's log also to `study.log` in a run's folder, for as long as the context lasts.

    Args:
        path: The folder.

    Yields:
        None. The file is made by the first line.
    """
    package = logging.getLogger("ablate")
    handler = _LogFile(path / "study.log", encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        with suppress(OSError, ValueError):  # it flushes what did not fit on the disk
            handler.close()
