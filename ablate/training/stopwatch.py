"""A stopwatch that can be paused, and continued in another process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from the time that it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far, pauses excluded."""
        return time.perf_counter() - self._start

    def add(self, seconds: float) -> None:
        """Count seconds that were measured earlier, as by another process."""
        self._start -= seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time that is spent in this context."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - before
