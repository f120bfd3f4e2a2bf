"""A run's append-only file of records, one JSON object a line: the truth, from which all else is rebuilt."""

import codecs
import math
import os
from pathlib import Path
from typing import Any

from ablate.config.canonical import OFF
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, checked
from ablate.errors import BadInput
from ablate.runs import lines
from ablate.runs.record import FIELDS, FOUND, SCHEMA, Record, arm

STATUSES = ("complete", "pruned", "failed")
TEXT, ROWS = ("arm", "device", "error", "started_at"), ("curve", "rungs")
NUMBERS = ("seed", "fraction", "epochs", *(name for name in FOUND if name not in TEXT))
KINDS = (
    dict.fromkeys(NUMBERS, "a finite number")
    | dict.fromkeys(TEXT, "text")
    | dict.fromkeys(ROWS, "a list of epochs")
)
NAMES: dict[type[Spec], tuple[str, ...]] = {
    kind: tuple(kind.model_fields) for kind in (TrialSpec, Recipe, LayerSpec)
}


class _Newer(ValueError):
    """A record of a version that is to come."""


def trial_of(record: Record) -> TrialSpec:
    """The trial of a record. Raises BadInput where it has fields that only a newer version knows."""
    return checked(
        TrialSpec, record["spec"], f"trial {record.get('trial_id')}, maybe of a newer version of ablate"
    )


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
    """A record as it stands in the file, with a checksum."""
    return lines.encode(record)


def recover(path: Path) -> int:
    """Cut off a last line without its newline, which a power cut leaves; the number of bytes cut off.

    Raises BadInput where it is no such line.
    """
    content = path.read_bytes()
    *_, torn = _split(path, content)
    if torn:
        os.truncate(path, len(content) - len(torn))
    return len(torn)


def read(path: Path) -> list[Record]:
    """All whole records, with a default for each field that an older version did not write; others' fields are kept.

    A last line without its newline (a torn write) is left out; any other bad line raises BadInput.
    """
    return parse(path.read_bytes(), path) if path.exists() else []


def parse(content: bytes, path: Path) -> list[Record]:
    """The records of a ledger's content, as `read` does."""
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
    """The lines of a ledger, and what follows the last newline. An editor's byte order mark is no part of them."""
    *whole, rest = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines.is_torn(rest):
        raise _bad(path, len(whole) + 1, "its newline was changed")
    return [*whole, rest]


def _bad(path: Path, number: int, reason: str) -> BadInput:
    return BadInput(
        f"{path}:{number}: not a record: {reason}; restore the ledger from a copy or delete this line"
    )


def _record(found: dict[str, Any]) -> Record:
    """What a line holds as a record. Raises ValueError with what is wrong."""
    schema = found.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise _Newer(
            f"it was written by a newer version, whose records have schema {str(schema)[:60]} and not {SCHEMA}"
        )
    if type(schema) is not int or schema != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, but got {schema!r:.60}")
    for name in ("trial_id", "status"):
        if not isinstance(found.get(name), str):
            raise ValueError(f"{name} must be text, but got {found.get(name)!r:.60}")
    if found["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, but got {found['status']!r:.60}")
    spec, plain = _spec(found.get("spec"))
    record = dict.fromkeys(FIELDS) | _of(spec) | found | {"spec": plain, "curve": found.get("curve", [])}
    needed = ("arm", "seed", "fraction", "curve", *(["accuracy"] if record["status"] == "complete" else []))
    for name, kind in KINDS.items():
        value = record.get(name)
        if not (_is(value, name) or (value is None and name not in needed)):
            raise ValueError(f"{name} must be {kind}, but got {value!r:.60}")
    return record


def _of(spec: TrialSpec) -> Record:
    """What a record repeats of its trial."""
    return {"arm": arm(spec), "seed": spec.seed, "fraction": spec.fraction, "epochs": spec.recipe.epochs}


def _is(value: Any, name: str) -> bool:
    if name in ROWS:
        return isinstance(value, list) and all(
            isinstance(row, dict) and _is(row.get("epoch"), "epochs") for row in value
        )
    if name in TEXT:
        return isinstance(value, str)
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _spec(found: Any) -> tuple[TrialSpec, dict[str, Any]]:
    """A trial as this version reads it, and as plain data: what it lacks was added later, and was off; the unknown is kept."""
    if not (
        isinstance(found, dict) and all(isinstance(found.get(key, {}), dict) for key in ("recipe", "layers"))
    ):
        raise ValueError(f"spec must be an object with recipe and layers as objects, but got {found!r:.60}")
    recipe, layers = _off(Recipe) | found.get("recipe", {}), {}
    for group, layer in found.get("layers", {}).items():
        if not isinstance(layer, dict):
            raise ValueError(f"spec.layers.{group} must be an object, but got {layer!r:.60}")
        layers[group] = _off(LayerSpec) | layer
    known = {group: _known(LayerSpec, layer) for group, layer in layers.items()}
    spec = checked(
        TrialSpec, _known(TrialSpec, found) | {"recipe": _known(Recipe, recipe), "layers": known}, "spec"
    )
    plain = spec.model_dump()
    layers = {group: plain["layers"][group] | layer for group, layer in layers.items()}
    return spec, plain | found | {"recipe": plain["recipe"] | recipe, "layers": layers}


def _off(kind: type[Spec]) -> dict[str, Any]:
    return {key: OFF[key] for key in NAMES[kind] if key in OFF}


def _known(kind: type[Spec], fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key in NAMES[kind]}
