"""Ctrl-C while trials run: the first waits a little for the current epochs, the second for nothing."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ablate.labels import one_line

GRACE_SECONDS = 10.0  # that the first Ctrl-C waits for the epochs


@contextmanager
def interruptible(stop: Callable[[], str]) -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM calls `stop`, the second raises KeyboardInterrupt.

    After GRACE_SECONDS the first does what the second would do. Outside of the main thread, where Python
    allows no signal handlers, nothing changes.

    Args:
        stop: Asks the running trials to end with their current epoch; returns what is waited for.

    Yields:
        None.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    timer = threading.Timer(GRACE_SECONDS, signal.pthread_kill, (main.ident, signal.SIGINT))
    timer.daemon = True
    signalled = False

    def handle(number: int, frame: object) -> None:
        nonlocal signalled
        if signalled:
            raise KeyboardInterrupt
        signalled = True
        timer.start()
        line = f"ablate: {one_line(stop())}\n"
        if sys.__stderr__:  # else 2 may be any file
            # At once, whatever waits for the epoch. `print` must not be entered twice.
            with suppress(OSError):
                os.write(2, line.encode())

    originals = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in originals.items():
            signal.signal(number, handler)
