"""Follows a ledger while it grows: its records in their order, each once, by one follower of a kind."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ablate.data.cache import cache
from ablate.errors import BadInput
from ablate.runs import ledger
from ablate.runs.record import Record

POLL_SECONDS = 1.0


def follow(path: Path, is_over: Callable[[], bool], wait: Callable[[float], object]) -> Iterator[Record]:
    """Yield the records of a ledger as they are written.

    Args:
        path: The ledger; it need not exist yet.
        is_over: Whether no more records come. What was written before is yielded still.
        wait: Is called with the seconds until the next look.

    Raises:
        BadInput: As `ledger.read`.
    """
    seen: set[str] = set()
    place = 0
    while True:
        over = is_over()  # before the look, so that the last record is not missed
        content = _content_from(path, place)
        for record in ledger.parse(content, path):
            if record["trial_id"] not in seen:
                seen.add(record["trial_id"])
                yield record
        place += content.rfind(b"\n") + 1  # a line that is being written is read again
        if over:
            return
        wait(POLL_SECONDS)


def _content_from(path: Path, place: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(place)
        return file.read()


@contextmanager
def alone(key: str, what: str) -> Iterator[None]:
    """Keep other processes of this user from doing the same, for as long as the context lasts.

    Args:
        key: Tells what is done from all else.
        what: The same for the message, as "'run' to mlflow".

    Raises:
        BadInput: Another process does it.
    """
    folder = cache() / "following"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        rule = f"one process at a time may send a run to one place, but another sends {what} now"
        raise BadInput(f"{rule}; wait until it ends") from None
    try:
        yield
    finally:
        lock.release()
