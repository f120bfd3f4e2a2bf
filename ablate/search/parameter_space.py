"""The points of a study's space: what varies, by name; a point's trial, and a trial's point."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from ablate.config.canonical import USUAL, effective, idle, idle_in, is_outer
from ablate.config.search_space import Axis, Each, Range
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, Value, accepts

Point = dict[str, Any]  # axis name -> value


class Points:
    """A space over the layer groups that it applies to."""

    def __init__(self, study: StudySpec, groups: list[str]) -> None:
        self.study, self.groups = study, groups
        self.axes = dict(
            sorted(axes_of(study, groups))
        )  # what varies; sorted, since a TOML file keeps no order

    @property
    def size(self) -> float:
        """Points of the space, counted before those that coincide are merged; infinite with a continuous axis."""
        counts = [levels(axis) for axis in self.axes.values()]
        return (
            math.inf if math.inf in counts else math.prod(counts)
        )  # a product of many is beyond what a float holds

    def spec_at(self, point: Point) -> TrialSpec | None:
        """The trial at a point; None where the point's values exclude each other. Axes without effect leave no trace."""
        space, chosen = self.study.space, {}
        for group in self.groups:
            fields = {
                key: point.get(f"{group}.{key}", point.get(key, axis)) for key, axis in space.layer.items()
            }
            if fields["weights"] != "full":
                chosen[group] = fields
        recipe = self.study.recipe.model_dump() | {
            key: point.get(f"recipe.{key}", axis) for key, axis in space.recipe.items()
        }
        try:
            spec = TrialSpec(
                model=self.study.model,
                data=self.study.data,
                layers={group: LayerSpec(**fields) for group, fields in chosen.items()},
                fraction=point.get("fraction", space.fraction),
                recipe=Recipe(**recipe),
                seed=self.study.seed,
            )
        except ValidationError:
            return None
        return effective(spec)

    def point(self, spec: TrialSpec) -> Point:
        """The point of a trial: the inverse of `spec_at`, with the usual value on an axis that left no trace."""
        point = {}
        for name, axis in self.axes.items():
            owner, _, key = name.rpartition(".")
            layers = (
                [spec.layers[owner]]
                if owner in spec.layers
                else []
                if owner in self.groups
                else [*spec.layers.values()]
            )
            value: Any
            if key == "fraction":
                value = spec.fraction
            elif key == "outer_full":  # it left its trace in the layers, if anywhere
                value = (
                    any(map(is_outer, self.groups))
                    and bool(spec.layers)
                    and not any(map(is_outer, spec.layers))
                )
            elif owner == "recipe":
                value = getattr(spec.recipe, key)
            elif key == "weights":
                value = layers[0].weights if layers else "full"
            else:  # layers share an axis' value, but for those where it has no effect
                value = next((v for layer in layers if (v := getattr(layer, key)) != USUAL[key]), USUAL[key])
            value = "none" if value is None else value
            point[name] = value if on(axis, value) else usual(name, axis)
        return point

    def idle(self, spec: TrialSpec) -> list[str]:
        """The axes that have no effect on a trial, as activation bits where nothing is quantized."""
        off = {f"recipe.{key}" for key in idle(spec, bool(spec.layers))} - {"recipe.outer_full"}
        for name in self.axes:
            owner, _, key = name.rpartition(".")
            if owner != "recipe" and key not in ("weights", "fraction"):
                layers = (
                    [*spec.layers.values()]
                    if owner not in self.groups
                    else [spec.layers.get(owner, LayerSpec())]
                )
                off |= {name} if all(key in idle_in(layer) for layer in layers) else set()
        return [name for name in self.axes if name in off]

    def anchors(self) -> Iterator[Point]:
        """All full, all binary, all ternary, ...; then head and first block full with the rest binary."""
        base = {name: usual(name, axis) for name, axis in self.axes.items()}
        weights = {name: axis for name, axis in self.axes.items() if name.rpartition(".")[2] == "weights"}
        allowed = dict.fromkeys(kind for axis in weights.values() for kind in choices(axis))
        for kind in allowed or [None]:
            yield base | {name: kind for name, axis in weights.items() if kind in choices(axis)}
        outer = {name for name in weights if name.startswith(("head.", "block0."))}
        if outer and {"full", "binary"} <= set(allowed):
            yield base | {name: "full" if name in outer else "binary" for name in weights}


def axes_of(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, BaseDistribution]]:
    """The axes that vary, by name: `block0.fc1.weights` (each group's own), `activation_bits`, `recipe.…`, `fraction`."""
    space = study.space
    named: list[tuple[str, type[Spec], str, Axis]] = []
    for key, axis in space.layer.items():
        names = [f"{group}.{key}" for group in groups] if isinstance(axis, Each) else [key]
        named += [(name, LayerSpec, key, axis) for name in names]
    named += [(f"recipe.{key}", Recipe, key, axis) for key, axis in space.recipe.items()]
    named += [("fraction", TrialSpec, "fraction", space.fraction)]
    for name, spec, key, axis in named:
        if isinstance(axis, Range):
            between = axis.low + (axis.high - axis.low) / math.pi
            whole = not accepts(spec, key, between)  # a field that refuses such a number is an integer
            kind = IntDistribution if whole else FloatDistribution
            yield name, kind(axis.low, axis.high, log=axis.log)
        elif isinstance(axis, Each | tuple):
            yield name, CategoricalDistribution(axis.each if isinstance(axis, Each) else axis)


def usual(name: str, axis: BaseDistribution) -> Any:
    """The field's own default where the axis has it, else the axis' last value."""
    key = name.rpartition(".")[2]
    defaults: dict[str, Value | None] = {**Recipe().model_dump(), **LayerSpec().model_dump(), "fraction": 1.0}
    default = "none" if defaults[key] is None else defaults[key]
    if on(axis, default):
        return default
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[-1]
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return axis.high


def on(axis: BaseDistribution, value: Any) -> bool:
    if isinstance(axis, CategoricalDistribution):
        return value in axis.choices
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and axis.low <= value <= axis.high


def draw(axis: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[rng.integers(len(axis.choices))]
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return at(axis, rng.random())


def at(axis: FloatDistribution | IntDistribution, unit: float) -> float:
    """The value at a share of a range, from 0 to 1."""
    value = (
        axis.low * (axis.high / axis.low) ** unit if axis.log else axis.low + (axis.high - axis.low) * unit
    )
    value = min(max(value, axis.low), axis.high)
    return round(value) if isinstance(axis, IntDistribution) else float(value)


def choices(axis: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices
    assert isinstance(axis, IntDistribution)
    return tuple(range(axis.low, axis.high + 1))


def levels(axis: BaseDistribution) -> float:
    if isinstance(axis, IntDistribution):
        return axis.high - axis.low + 1
    return len(axis.choices) if isinstance(axis, CategoricalDistribution) else math.inf
