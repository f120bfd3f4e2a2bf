"""A run's append-only file of records, one JSON object a line. All else in a run can be rebuilt from it.

A trial has one record. Records that are equal count once, as where two copies of a ledger were put together.
"""

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ablate.config.trial_spec import TrialSpec, checked
from ablate.errors import BadInput, short_repr
from ablate.runs import lines
from ablate.runs.record import SCHEMA, Record
from ablate.runs.record_fields import record_of

CONFLICT = re.compile(rb"(<{7}|\|{7}|={7}|>{7})( |$)")  # git's markers
DECLARED = re.compile(rb'"schema"\s*:\s*(\d{1,9})')
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # of a file's name
# First bytes of other files -> what to say.
OTHER_FILES = {
    b"\x1f\x8b": "is compressed; unpack it with `gunzip`",
    b"BZh": "is compressed; unpack it with `bunzip2`",
    b"\xfd7zXZ": "is compressed; unpack it with `unxz`",
    b"\x28\xb5\x2f\xfd": "is compressed; unpack it with `unzstd`",
    b"PK\x03\x04": "is a zip archive; unpack it with `unzip`",
    codecs.BOM_UTF16_LE: "is in UTF-16; save it in UTF-8",
    codecs.BOM_UTF16_BE: "is in UTF-16; save it in UTF-8",
}
Numbered = tuple[int, Record]  # a record and the number of its line
MAX_DIFFERENCES = 3  # that a message names


def trial_of(record: Record) -> TrialSpec:
    """Return the trial of a record. Raises BadInput where it has fields that only a newer version knows."""
    return checked(
        TrialSpec, record["spec"], f"trial {record['trial_id']}, maybe of a newer version of ablate"
    )


def append(path: Path, record: Record) -> None:
    """Append one record and force it to the disk. Nothing of it stays where it does not fit.

    Args:
        path: The ledger.
        record: The record.

    Raises:
        OSError: The line could not be written.
    """
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            rest = memoryview(line(record))
            while rest:  # a disk that fills up takes a part of the line first, and raises on the next write
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def line(record: Record) -> bytes:
    """Return a record as a line of the file, with its checksum and its newline."""
    return lines.encode(record)


def recover(path: Path) -> int:
    """Mend the end of a ledger, as a power cut or an editor leaves it, so that records can be appended.

    A last line that was cut short is cut off. A whole record that lacks its newline gets it. A ledger that
    cannot be read stays as it is.

    Args:
        path: The ledger.

    Returns:
        The number of bytes that were cut off.

    Raises:
        BadInput: As `read`.
    """
    content = _content(path)
    parse(content, path)
    *_, rest = _split(path, content)
    kept = _without_newline(rest)
    if rest:
        os.truncate(path, len(content) - len(rest) + len(kept))
    if kept:
        with path.open("ab") as file:
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
    return len(rest) - len(kept)


def read(path: Path) -> list[Record]:
    """Read all whole records, each trial's once.

    Fields that an older version did not write get their defaults. Fields that only another version knows are
    kept. A last line that was cut short, as a power cut leaves it, is left out, and so are blank lines.

    Args:
        path: The ledger; it need not exist.

    Returns:
        The records in the order in which the trials ended.

    Raises:
        BadInput: A line is not a record, or was changed after it was written, or is of a newer schema; or a
            trial has two records that differ; or the file is compressed.
    """
    return parse(_content(path), path)


def _content(path: Path) -> bytes:
    """A ledger's content, b"" where there is none. Raises BadInput where it is in a compressed file."""
    content = path.read_bytes() if path.exists() else b""
    others = [] if content else [file.name for file in path.parent.glob(f"{path.name}.*")]
    if found := sorted(name for name in others if name.endswith(PACKED)):
        raise BadInput(f"{path} holds no record, but {found[0]} is beside it; unpack that first")
    return content


def parse(content: bytes, path: Path) -> list[Record]:
    """Return the records of a ledger's content, as `read` does. `path` is for the messages."""
    for start, what in OTHER_FILES.items():
        if content.startswith(start):
            raise BadInput(f"{path} must be lines of text, but {what}")
    return _once(path, _records(path, content))


def _records(path: Path, content: bytes) -> Iterator[Numbered]:
    """The records with the numbers of their lines."""
    *whole, rest = _split(path, content)
    for number, text in enumerate([*whole, _without_newline(rest)], 1):
        # Files that were put together each have their byte order mark.
        text = text.removeprefix(codecs.BOM_UTF8).removesuffix(b"\r")
        if text.strip():
            yield number, _record(path, number, text)
    _check_schema(path, len(whole) + 1, rest)


def _record(path: Path, number: int, text: bytes) -> Record:
    if marker := CONFLICT.match(text):
        what = f"a conflict marker of git, {marker[1].decode()!r}, of a merge that is not finished"
        mend = "keep the records of both sides, since equal ones count once, and delete the markers"
        raise BadInput(f"{path}:{number}: {what}; {mend}")
    try:
        fields = lines.decode(text)
    except ValueError as error:
        _check_schema(path, number, text, damaged=True)
        raise _bad(path, number, str(error), _mend(text)) from None
    if type(schema := fields.get("schema")) is int and schema > SCHEMA:
        raise _newer(path, number, schema)
    try:
        return record_of(fields)
    except ValueError as error:
        if lines.is_sealed(text):  # so that nobody changed it
            what = f"this version cannot read a record that is as it was written: {error}"
            raise BadInput(f"{path}:{number}: {what}; upgrade ablate") from None
        raise _bad(path, number, str(error)) from None


def _once(path: Path, records: Iterable[Numbered]) -> list[Record]:
    """Each trial's record once. Raises BadInput where two of them differ."""
    first: dict[str, Numbered] = {}
    contradictions = []
    for number, record in records:
        before, earlier = first.setdefault(record["trial_id"], (number, record))
        if record != earlier:
            contradictions.append((before, number, earlier, record))
    if contradictions:
        before, number, earlier, record = contradictions[0]
        rule = f"a trial must have one record, but {record['trial_id'][:80]} has two that differ"
        where = f"in lines {before} and {number} ({_differences(earlier, record)})"
        more = f", and {len(contradictions) - 1} more lines are of this kind" if contradictions[1:] else ""
        mend = "delete the line that is not of this run, and restore the ledger from a copy where in doubt"
        raise BadInput(f"{path}: {rule}, {where}{more}; {mend}")
    return [record for _, record in first.values()]


def _differences(one: Record, other: Record) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    values = [f"{name}: {short_repr(one.get(name))}, {short_repr(other.get(name))}" for name in names]
    return "; ".join(value[:80] for value in values[:MAX_DIFFERENCES])


def _split(path: Path, content: bytes) -> list[bytes]:
    """Return a ledger's lines, the last one what follows the last newline."""
    *whole, rest = content.split(b"\n")
    if not lines.is_torn(rest):
        raise _bad(path, len(whole) + 1, "its newline was changed")
    return [*whole, rest]


def _without_newline(rest: bytes) -> bytes:
    """The whole record that lacks nothing but its newline; b"" where it was cut short."""
    text = rest.rstrip(b"\0\r")
    try:
        lines.decode(text.removeprefix(codecs.BOM_UTF8))
        return text
    except ValueError:
        return b""


def _mend(text: bytes) -> str:
    """What to do with a line that begins with another record; "" where none follows."""
    start = text.rfind(b'{"schema":')
    try:
        lines.decode(text[max(start, 0) :])
    except ValueError:
        return ""
    return f"put a line break before its character {start + 1}, where a whole record begins"


def _check_schema(path: Path, number: int, text: bytes, damaged: bool = False) -> None:
    """Raise BadInput for a line that says that it is of a newer schema, though it cannot be read."""
    declared = DECLARED.search(text)
    if declared and int(declared[1]) > SCHEMA:
        raise _newer(path, number, int(declared[1]), damaged)


def _newer(path: Path, number: int, schema: int, damaged: bool = False) -> BadInput:
    what = f"written by a newer version of ablate: schema {schema}, and this version reads {SCHEMA}"
    also = (
        "; if that is no newer version's, it was changed: restore the ledger from a copy" if damaged else ""
    )
    return BadInput(f"{path}:{number}: {what}; upgrade ablate{also}")


def _bad(path: Path, number: int, reason: str, mend: str = "") -> BadInput:
    mend = mend or "restore the ledger from a copy or delete this line"
    return BadInput(f"{path}:{number}: not a record: {reason}; {mend}")
