"""A run's append-only file of records, one JSON object a line: the truth, from which all else is rebuilt."""

import json
import os
from pathlib import Path
from typing import Any

from ablate.errors import AblateError

Record = dict[str, Any]
SCHEMA = 1
ASKED = ("schema", "trial_id", "spec", "status", "arm", "seed", "fraction", "epochs")
FOUND = (
    *("images", "steps", "accuracy", "loss", "test_accuracy", "test_loss"),
    *("size_bytes", "parameters", "macs", "bitops", "latency_ms"),
    *("train_seconds", "threads", "device", "error"),
)
FIELDS = (*ASKED, *FOUND, "curve", "started_at")


def append(path: Path, record: Record) -> None:
    """Add one line and force it to the disk before returning; a line that does not fit is taken back."""
    line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            file.write(line.encode())
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def recover(path: Path) -> int:
    """Cut off a last line without its newline, which a power cut leaves; the number of bytes cut off."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole


def read(path: Path) -> list[Record]:
    """All whole records. A last line without its newline (a torn write) is left out; any other bad line raises."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if record["schema"] != SCHEMA or not set(FIELDS) <= set(record):
                raise KeyError
            records.append(record)
        except (ValueError, TypeError, KeyError):
            raise AblateError(f"{path}:{number}: not a record; restore the ledger from a copy or delete this line") from None
    return records
