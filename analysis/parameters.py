"""The parameters in which trials differ, as a table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

Spec = dict[str, Any]


def parameters(records: pd.DataFrame) -> pd.DataFrame:
    """The parameters that vary between trials, named as the axes of a search.

    Args:
        records: a row per trial, with its `spec`.

    Returns:
        (n, parameters), None where a parameter has no effect in a trial. `GROUP.weights` is a layer group's
        precision, `GROUP.FIELD` another field of its quantization, `recipe.FIELD` one of the recipe; then
        there is `fraction`. A field is one parameter without GROUP where in each trial all quantized groups
        have the same value, as in a space with one axis for all.
    """
    specs = list(records["spec"])
    shared = shared_fields(specs)
    weights = precisions(specs).add_suffix(".weights")
    if len(weights.columns) > 1 and (weights.nunique(axis=1) == 1).all():
        weights = weights.iloc[:, :1].set_axis(["weights"], axis=1)
    rows = [
        {**row, **_other_fields(spec, shared)}
        for row, spec in zip(weights.to_dict("records"), specs, strict=True)
    ]
    names = sorted({name for row in rows for name in row})
    columns = {name: [row.get(name) for row in rows] for name in names}
    varying = {name: values for name, values in columns.items() if len({*map(repr, values)} - {"None"}) > 1}
    return pd.DataFrame(varying, index=records.index, dtype=object)


def fields_of(spec: Spec, groups: Iterable[str], shared: set[str]) -> dict[str, Any]:
    """The fields of one trial, named as those of `parameters`.

    Args:
        spec: of the trial.
        groups: the layer groups of its study; those that the trial does not quantize are "full".
        shared: the fields of layers that are named without their group, as of `shared_fields`.

    Returns:
        A value, "none" for None, by the field's name.
    """
    weights = dict.fromkeys(groups, "full") | {
        group: layer["weights"] for group, layer in spec["layers"].items()
    }
    named = {f"{group}.weights": kind for group, kind in weights.items()}
    return {**named, **_other_fields(spec, shared)}


def precisions(specs: Sequence[Spec]) -> pd.DataFrame:
    """The precision of each layer group.

    Args:
        specs: of n trials.

    Returns:
        (n, groups): "full", "binary" and so on.
    """
    groups = sorted({group for spec in specs for group in spec["layers"]})
    rows = [[spec["layers"].get(group, {"weights": "full"})["weights"] for group in groups] for spec in specs]
    return pd.DataFrame(rows, columns=groups, dtype=object)


def _other_fields(spec: Spec, shared: set[str]) -> dict[str, Any]:
    """All fields but the layers' precisions."""
    recipe = {f"recipe.{key}": _text_for_none(value) for key, value in spec["recipe"].items()}
    return {**_layer_fields(spec, shared), **recipe, "fraction": spec["fraction"]}


def _layer_fields(spec: Spec, shared: set[str]) -> dict[str, Any]:
    return {
        key if key in shared else f"{group}.{key}": value
        for group, layer in spec["layers"].items()
        for key, value in _effective_fields(layer)
    }


def _effective_fields(layer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a quantized layer that have an effect, but its weights. Integer weights have no beta."""
    if layer["weights"] == "full":
        return
    integer = layer["weights"].startswith("int")
    for key, value in layer.items():
        if key != "weights" and not (integer and key.startswith("beta")):
            yield key, _text_for_none(value)


def _text_for_none(value: Any) -> Any:
    return "none" if value is None else value


def shared_fields(specs: Sequence[Spec]) -> set[str]:
    """The fields that have the same value in all quantized layers of each trial."""
    every, different = set(), set()
    for spec in specs:
        layers = spec["layers"].values()
        values = {(key, repr(value)) for layer in layers for key, value in _effective_fields(layer)}
        counts = Counter(key for key, _ in values)
        every |= set(counts)
        different |= {key for key, count in counts.items() if count > 1}
    return every - different
