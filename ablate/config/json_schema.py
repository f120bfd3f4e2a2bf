"""JSON Schemas of studies and search spaces, by which an editor completes, explains and checks their files.

They are made from the specs, whose own checks refuse more: what the parts of a study must have in common.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from ablate.config.builtin import names
from ablate.config.designs import EarlyStopping, Step
from ablate.config.objectives import OBJECTIVES
from ablate.config.samplers import SAMPLERS
from ablate.config.search_space import Range, SpaceSpec
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, is_numeric

Schema = dict[str, Any]
PLUGIN = {"type": "string", "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$"}  # module:name


def study_schema() -> Schema:
    """Return the JSON Schema of a study's TOML file."""
    schema = _of(StudySpec)
    fields = schema["properties"]
    fields["objectives"]["items"] = _named(OBJECTIVES)
    fields["sampler"] |= _named(SAMPLERS)
    fields["tune"] |= _choices_of(Recipe)
    design = fields["design"]
    one = {"enum": [*design.pop("items")["enum"], "search"]}
    alone, listed = (
        {**one, "description": "The only one."},
        {"type": "array", "items": {"enum": one["enum"][:-1]}},
    )
    fields["design"] = _either(alone, listed) | {key: design[key] for key in ("description", "default")}
    file = {
        "type": "string",
        "description": "A built-in name, or the path of a TOML file.",
        "examples": names("search_spaces"),
    }
    fields["space"] = _either(fields["space"], file) | {"description": "What may vary."}
    return _whole(schema, "A study of ablate", (EarlyStopping, Range, Recipe, SpaceSpec, Step))


def space_schema() -> Schema:
    """Return the JSON Schema of a search space's TOML file."""
    return _whole(_of(SpaceSpec), "A search space of ablate", (Range,))


def descriptions(spec: type[Spec]) -> tuple[str, dict[str, str]]:
    """Return what a spec's docstring says of it, and of each of its fields."""
    doc, _, arguments = inspect.cleandoc(spec.__doc__ or "").partition("\n\nArgs:\n")
    parts = (part.partition(": ") for part in re.split(r"\n(?=    \w)", arguments))
    return doc, {name.strip(): " ".join(about.split()) for name, _, about in parts}


def _whole(schema: Schema, title: str, parts: tuple[type[Spec], ...]) -> Schema:
    defined = {spec.__name__: _of(spec) for spec in parts}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": title}
    return {**head, **schema, "definitions": defined}


def _of(spec: type[Spec]) -> Schema:
    """The schema of one spec, whose parts are `definitions` beside it."""
    schema = _plain(spec.model_json_schema(ref_template="#/definitions/{model}"))
    schema.pop("$defs", None)
    schema["description"], about = descriptions(spec)
    fields = schema["properties"]
    for name, field in fields.items():
        field["description"] = about[name]
    if spec is SpaceSpec:
        fields["objectives"]["items"] = _named(OBJECTIVES)
        fields["layer"] |= _table(
            {name: _axis(LayerSpec, name) for name in LayerSpec.model_fields}, ["weights"]
        )
        fields["recipe"] |= _table({name: _axis(Recipe, name) for name in Recipe.model_fields})
        fields["fraction"] |= _axis(TrialSpec, "fraction")
    if spec is Step:
        fields["layer"] |= _table(_of(LayerSpec)["properties"])
        fields["recipe"] |= _table(_of(Recipe)["properties"])
        fields["tune"] |= _choices_of(Recipe)
    return schema


def _plain(node: Any) -> Any:
    """A schema of pydantic without titles, and with TOML's "none" for null."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node == {"type": "null"}:
        return {"const": "none"}
    if node.get("default", "") is None:
        node = {**node, "default": "none"}
    if isinstance(node.get("default"), dict):  # of a table: it repeats its fields' own
        node = {key: value for key, value in node.items() if key != "default"}
    return {key: _plain(value) for key, value in node.items() if key != "title" or isinstance(value, dict)}


def _axis(spec: type[Spec], name: str) -> Schema:
    """An axis of a space: a value, a list of choices, a range, or choices for each layer group."""
    field = dict(_of(spec)["properties"][name])
    about = {"description": field.pop("description")}
    field.pop("default", None)
    listed = _list(field)
    kinds = [field, {**listed, "description": "One choice for all of a trial."}]
    if spec is LayerSpec:
        kinds.append(_table({"each": listed}, ["each"]) | {"description": "A choice for each layer group."})
    if is_numeric(spec, name):
        kinds.append({"$ref": "#/definitions/Range"})
    return _either(*kinds) | about


def _choices_of(spec: type[Spec]) -> Schema:
    fields = _of(spec)["properties"].items()
    return _table({name: _list(field) | {"description": field["description"]} for name, field in fields})


def _list(items: Schema) -> Schema:
    return {
        "type": "array",
        "items": {key: value for key, value in items.items() if key != "description"},
        "minItems": 1,
    }


def _table(fields: dict[str, Schema], required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": fields, "additionalProperties": False, "required": required or []}


def _named(known: Iterable[str]) -> Schema:
    return _either({"enum": list(known)}, PLUGIN)


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}
