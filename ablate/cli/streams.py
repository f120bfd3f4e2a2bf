"""The standard streams of a command: nothing that cannot be shown ends the work.

A reader may go away (`| head`), a terminal may close, a disk may be full. The stream is then dropped.
"""

import errno
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, TextIO, cast

from ablate.labels import one_line

log = logging.getLogger(__name__)
READER_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET}  # EIO: the terminal was closed


class GuardedStream:
    """A text stream whose writes do not fail.

    The first failed write sends all further output of its file descriptor to /dev/null.

    Args:
        stream: The stream.
        name: What the log calls it.

    Attributes:
        is_view: Whether the output only shows work that goes on without it, as a study's.
        lost: Why output was lost that somebody may wait for, as on a full disk; else None.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name = stream, name
        self.is_view = False
        self.lost: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self.stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: OSError | ValueError) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if not self.is_view and getattr(error, "errno", None) not in READER_GONE:
            self.lost = reason
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self.stream.fileno())
            self.stream.flush()
            os.close(null)
        except (OSError, ValueError):  # no file, or a closed one
            self.stream = os.fdopen(null, "w", encoding="utf-8")
        if self.is_view:
            log.warning("%s is dropped and the study goes on: %s", self.name, reason)


class _ToStandardError(logging.Handler):
    """Prints a line to standard error, whichever stream that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            print(one_line(self.format(record)), file=sys.stderr, flush=True)


def guard_streams() -> GuardedStream:
    """Make standard output and standard error safe to write, and send the package's log to the latter.

    Characters that an encoding lacks are replaced by their escapes. A closed stream is /dev/null.

    Returns:
        The new standard output.
    """
    _open_closed()
    streams = []
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        stream = stream.stream if isinstance(stream, GuardedStream) else stream
        with suppress(AttributeError):  # a stream of somebody else's
            # Line by line on a pipe, too.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        streams.append(GuardedStream(stream, name))
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    package = logging.getLogger("ablate")
    package.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToStandardError) for handler in package.handlers):
        package.addHandler(_ToStandardError())
    return streams[0]


def outlive_terminal(as_json: bool) -> None:
    """Let this command, and the processes that it starts, go on when its output or its terminal is gone.

    Args:
        as_json: Standard output is a result, and its loss is an error.
    """
    for stream in [sys.stderr] if as_json else [sys.stdout, sys.stderr]:
        if isinstance(stream, GuardedStream):
            stream.is_view = True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the processes of Ray inherit it


def _open_closed() -> None:
    """Open /dev/null in place of closed standard streams, whose numbers the next opened files would get."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
