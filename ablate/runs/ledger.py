"""A run's append-only file of records, one JSON object a line. All else in a run can be rebuilt from it."""

import codecs
import math
import os
from pathlib import Path
from typing import Any, cast, get_args

from ablate.config.canonical import OFF
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, checked
from ablate.errors import BadInput
from ablate.plugins import is_plugin
from ablate.runs import lines
from ablate.runs.record import FIELDS, OUTCOME, SCHEMA, Record, Status, arm

STATUSES = get_args(Status)
TEXT, ROWS = ("arm", "device", "error", "started_at"), ("curve", "rungs")
NUMBERS = ("seed", "fraction", "epochs", *(name for name in OUTCOME if name not in TEXT))
KINDS = {
    **dict.fromkeys(NUMBERS, "a finite number"),
    **dict.fromkeys(TEXT, "text"),
    **dict.fromkeys(ROWS, "a list of epochs"),
}
NAMES: dict[type[Spec], tuple[str, ...]] = {
    kind: tuple(kind.model_fields) for kind in (TrialSpec, Recipe, LayerSpec)
}


class _Newer(ValueError):
    """A record that a newer version wrote."""


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
    """Cut off a last line without a newline, as a power cut leaves it.

    Args:
        path: The ledger.

    Returns:
        The number of bytes that were cut off.

    Raises:
        BadInput: The last line was not cut short but changed.
    """
    content = path.read_bytes()
    *_, torn = _split(path, content)
    if torn:
        os.truncate(path, len(content) - len(torn))
    return len(torn)


def read(path: Path) -> list[Record]:
    """Read all whole records.

    Fields that an older version did not write get their defaults. Fields that only another version knows are
    kept. A last line without a newline, as a power cut leaves it, is left out.

    Args:
        path: The ledger; it need not exist.

    Returns:
        The records in the order in which the trials ended.

    Raises:
        BadInput: A line is not a record, or was changed after it was written, or is of a newer schema.
    """
    return parse(path.read_bytes(), path) if path.exists() else []


def parse(content: bytes, path: Path) -> list[Record]:
    """Return the records of a ledger's content, as `read` does. `path` is for the messages."""
    *whole, _torn = _split(path, content)
    records = []
    for number, text in enumerate(whole, 1):
        try:
            records.append(_record(lines.decode(text.removesuffix(b"\r"))))
        except _Newer as error:
            raise BadInput(f"{path}:{number}: {error}; upgrade ablate") from None
        except ValueError as error:
            raise _bad(path, number, str(error)) from None
    return records


def _split(path: Path, content: bytes) -> list[bytes]:
    """Return a ledger's lines, the last one what follows the last newline, without a byte order mark."""
    *whole, rest = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines.is_torn(rest):
        raise _bad(path, len(whole) + 1, "its newline was changed")
    return [*whole, rest]


def _bad(path: Path, number: int, reason: str) -> BadInput:
    return BadInput(
        f"{path}:{number}: not a record: {reason}; restore the ledger from a copy or delete this line"
    )


def _record(fields: dict[str, Any]) -> Record:
    """Return what a line holds as a record. Raises ValueError with what is wrong."""
    schema = fields.get("schema")
    if type(schema) is int and schema > SCHEMA:
        newer = f"whose records have schema {str(schema)[:60]} and not {SCHEMA}"
        raise _Newer(f"it was written by a newer version, {newer}")
    if type(schema) is not int or schema != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, but got {schema!r:.60}")
    for name in ("trial_id", "status"):
        if not isinstance(fields.get(name), str):
            raise ValueError(f"{name} must be text, but got {fields.get(name)!r:.60}")
    if fields["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, but got {fields['status']!r:.60}")
    spec, plain = _spec(fields.get("spec"))
    repeated = {"arm": arm(spec), "seed": spec.seed, "fraction": spec.fraction, "epochs": spec.recipe.epochs}
    curve = fields.get("curve", [])
    record = {**dict.fromkeys(FIELDS), **repeated, **fields, "spec": plain, "curve": curve}
    _check_kinds(record)
    return cast(Record, record)


def _check_kinds(record: dict[str, Any]) -> None:
    """Raise ValueError for a field that holds something of another kind."""
    needed = {"arm", "seed", "fraction", "curve"}
    if record["status"] == "complete":
        needed.add("accuracy")
    own = {name: "a finite number" for name in record if is_plugin(name)}
    for name, kind in {**KINDS, **own}.items():
        value = record.get(name)
        if not (_is(value, name) or (value is None and name not in needed)):
            raise ValueError(f"{name} must be {kind}, but got {value!r:.60}")


def _is(value: Any, name: str) -> bool:
    """Return whether a value is of its field's kind."""
    if name in ROWS:
        return isinstance(value, list) and all(
            isinstance(row, dict) and _is(row.get("epoch"), "epochs") for row in value
        )
    if name in TEXT:
        return isinstance(value, str)
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _spec(fields: Any) -> tuple[TrialSpec, dict[str, Any]]:
    """Return a record's trial as this version reads it, and as plain data.

    A field that the record lacks was added later, and was off when the trial ran. Unknown fields are kept in
    the plain data.
    """
    parts = [fields.get(key, {}) for key in ("recipe", "layers")] if isinstance(fields, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        rule = "spec must be an object with recipe and layers as objects"
        raise ValueError(f"{rule}, but got {fields!r:.60}")
    recipe, layers = {**_off(Recipe), **fields.get("recipe", {})}, {}
    for group, layer in fields.get("layers", {}).items():
        if not isinstance(layer, dict):
            raise ValueError(f"spec.layers.{group} must be an object, but got {layer!r:.60}")
        layers[group] = {**_off(LayerSpec), **layer}
    known_layers = {group: _known(LayerSpec, layer) for group, layer in layers.items()}
    known = {**_known(TrialSpec, fields), "recipe": _known(Recipe, recipe), "layers": known_layers}
    spec = checked(TrialSpec, known, "spec")
    plain = spec.model_dump()
    layers = {group: {**plain["layers"][group], **layer} for group, layer in layers.items()}
    return spec, {**plain, **fields, "recipe": {**plain["recipe"], **recipe}, "layers": layers}


def _off(kind: type[Spec]) -> dict[str, Any]:
    return {key: OFF[key] for key in NAMES[kind] if key in OFF}


def _known(kind: type[Spec], fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key in NAMES[kind]}
