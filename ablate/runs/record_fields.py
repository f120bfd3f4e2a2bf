"""Checks that the fields of a ledger's line are a record, and fills in those that older versions lacked."""

import math
from typing import Any, cast, get_args

from ablate.config.canonical import OFF
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, checked
from ablate.plugins import is_plugin
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


def record_of(fields: dict[str, Any]) -> Record:
    """Return what a line holds as a record.

    Fields that an older version did not write get their defaults. Fields that only another version knows are
    kept.

    Args:
        fields: Of the line, without its checksum.

    Returns:
        The record.

    Raises:
        ValueError: They are no record of this schema; the message says what is wrong.
    """
    schema = fields.get("schema")
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
