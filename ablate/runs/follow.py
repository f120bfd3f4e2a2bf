"""Reads a ledger while it grows: its records in their order, each once."""

from collections.abc import Callable, Iterator
from pathlib import Path

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
