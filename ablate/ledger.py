"""A run's append-only file of records, one JSON object a line: the truth, from which all else is rebuilt."""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate.errors import BadInput
from ablate.space_spec import OBJECTIVES
from ablate.spec import TrialSpec
from ablate.words import size_class

Record = dict[str, Any]
SCHEMA = 1
ASKED = ("schema", "trial_id", "spec", "status", "arm", "seed", "fraction", "epochs")
LATER = ("evaluation_batch",)  # fields that older ledgers lack
FOUND = (
    *("images", "steps", "accuracy", "loss", "test_accuracy", "test_loss"),
    *("size_bytes", "parameters", "macs", "bitops", "latency_ms"),
    *("train_seconds", "threads", "device", "error"),
    *LATER,
)
FIELDS = (*ASKED, *FOUND, "curve", "started_at")


def blank_record(spec: TrialSpec, name: str) -> Record:
    """A record with every field, of a trial that has not got anywhere yet and so has failed."""
    asked = (SCHEMA, name, spec.model_dump(), "failed", arm(spec), spec.seed, spec.fraction, spec.recipe.epochs)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return dict(zip(ASKED, asked, strict=True)) | dict.fromkeys(FOUND) | {"curve": [], "started_at": started}


def arm(spec: TrialSpec) -> str:
    """The kinds of quantized weights in a trial, "full" where there are none."""
    return "+".join(sorted({layer.weights for layer in spec.layers.values()})) or "full"


def best_by_size(records: Iterable[Record], within: Mapping[str, float]) -> dict[str, Record]:
    """The most accurate complete record of each size class, the smallest class first, of those that keep the bounds."""
    best: dict[str, Record] = {}
    complete = [r for r in records if r["status"] == "complete" and is_within(r, within)]
    for record in sorted(complete, key=lambda r: (r["size_bytes"], -r["accuracy"])):
        name = size_class(record["size_bytes"])
        if name not in best or record["accuracy"] > best[name]["accuracy"]:
            best[name] = record
    return best


def is_within(record: Record, within: Mapping[str, float]) -> bool:
    """Whether a record keeps bounds: at most so much of what should be small, at least so much of what should be large."""
    known = all(record[name] is not None for name in within)
    return known and all(record[n] <= b if OBJECTIVES[n] == "min" else record[n] >= b for n, b in within.items())


def append(path: Path, record: Record) -> None:
    """Add one line and force it to the disk before returning; a line that does not fit is taken back."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            rest = memoryview(line(record))
            while rest:  # a disk that fills up writes a part first, and raises on the next
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def line(record: Record) -> bytes:
    """A record as it stands in the file."""
    return (json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n").encode()


def recover(path: Path) -> int:
    """Cut off a last line without its newline, which a power cut leaves; the number of bytes cut off."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole


def read(path: Path) -> list[Record]:
    """All whole records. A last line without its newline (a torn write) is left out; any other bad line raises BadInput."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = dict.fromkeys(LATER) | json.loads(line)
            if record["schema"] != SCHEMA or not set(FIELDS) <= set(record):
                raise KeyError
            records.append(record)
        except (ValueError, TypeError, KeyError):
            raise BadInput(f"{path}:{number}: not a record; restore the ledger from a copy or delete this line") from None
    return records


def store(path: Path, content: bytes) -> None:
    """Write a file in one step that a power cut does not halve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
