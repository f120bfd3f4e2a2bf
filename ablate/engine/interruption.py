"""Ctrl-C while trials run: the first ends the study after the current epochs, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM calls `stop`, the second raises KeyboardInterrupt.

    Outside of the main thread, where Python allows no signal handlers, nothing changes.

    Args:
        stop: Asks the running trials to end with their current epoch.

    Yields:
        None.
    """
    signalled = False

    def handle(number: int, frame: object) -> None:
        nonlocal signalled
        if signalled:
            raise KeyboardInterrupt
        signalled = True
        stop()
        if sys.__stderr__:  # else 2 may be any file
            # At once, whatever waits for the epoch. `print` must not be entered twice.
            with suppress(OSError):
                os.write(2, b"ablate: ending after the current epochs; Ctrl-C again ends at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    originals = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in originals.items():
            signal.signal(number, handler)
