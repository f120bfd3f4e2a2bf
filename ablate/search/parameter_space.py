"""The points of a study's search space: its axes, the trial at a point, and the point of a trial."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from ablate.config.canonical import USUAL, effective, idle, idle_in, is_outer
from ablate.config.search_space import Each, Range
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, Value, accepts
from ablate.search.distributions import choices, contains, draw, n_values

Point = dict[str, Any]  # axis name -> value
Owner = Literal["layer group", "layers", "recipe", "trial"]
SPECS: dict[Owner, type[Spec]] = {
    "layer group": LayerSpec,
    "layers": LayerSpec,
    "recipe": Recipe,
    "trial": TrialSpec,
}


@dataclass(frozen=True)
class Axis:
    """A field of a trial that the search may vary.

    Args:
        owner: What the field belongs to: one layer group, all quantized layers alike, the recipe, or the
            trial.
        field: Name of the field in the owner's spec.
        distribution: The values that it may take.
        group: The layer group, where the owner is one.
    """

    owner: Owner
    field: str
    distribution: BaseDistribution
    group: str = ""

    @property
    def name(self) -> str:
        """Key in a point, as `block0.fc1.weights`, `activation_bits`, `recipe.epochs` or `fraction`."""
        prefix = {"layer group": self.group, "recipe": "recipe"}.get(self.owner)
        return self.field if prefix is None else f"{prefix}.{self.field}"

    @property
    def default(self) -> Any:
        """The default of the field's spec where the axis has that value, else the axis' last one."""
        value = _in_point(SPECS[self.owner].model_fields[self.field].default)
        if contains(self.distribution, value):
            return value
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices[-1]
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return self.distribution.high


class Points:
    """A study's search space over the layer groups that it applies to.

    Args:
        study: The study; its space says what varies, its recipe the rest.
        groups: Names of the layer groups that the space applies to.
    """

    def __init__(self, study: StudySpec, groups: list[str]) -> None:
        self.study, self.groups = study, groups
        axes = sorted(_axes(study, groups), key=lambda axis: axis.name)  # a TOML file keeps no order
        self.axes = {axis.name: axis for axis in axes}
        self.distributions = {name: axis.distribution for name, axis in self.axes.items()}

    @property
    def size(self) -> float:
        """How many points there are, equal trials counted apart; infinite with a continuous axis."""
        counts = [n_values(distribution) for distribution in self.distributions.values()]
        if math.inf in counts:  # `prod` of many integers is larger than a float can be
            return math.inf
        return math.prod(counts)

    @property
    def default(self) -> Point:
        """The point with the default on every axis."""
        return {name: axis.default for name, axis in self.axes.items()}

    def draw(self, rng: np.random.Generator) -> Point:
        """A point at random, uniform on every axis."""
        return {name: draw(distribution, rng) for name, distribution in self.distributions.items()}

    def spec_at(self, point: Point) -> TrialSpec | None:
        """The trial at a point, in its canonical form: a field that has no effect has its usual value.

        Args:
            point: A value for each axis.

        Returns:
            The trial; None where the point's values exclude each other.
        """
        space, layers = self.study.space, {}
        for group in self.groups:
            fields = {
                key: point.get(f"{group}.{key}", point.get(key, axis)) for key, axis in space.layer.items()
            }
            if fields["weights"] != "full":
                layers[group] = fields
        varied = {key: point.get(f"recipe.{key}", axis) for key, axis in space.recipe.items()}
        try:
            spec = TrialSpec(
                model=self.study.model,
                data=self.study.data,
                layers={group: LayerSpec(**fields) for group, fields in layers.items()},
                fraction=point.get("fraction", space.fraction),
                recipe=Recipe(**self.study.recipe.model_dump() | varied),
                seed=self.study.seed,
            )
        except ValidationError:
            return None
        return effective(spec)

    def point(self, spec: TrialSpec) -> Point:
        """The point of a trial: the inverse of `spec_at`, with defaults on axes that have no effect there."""
        point = {}
        for name, axis in self.axes.items():
            value = _in_point(self._value(axis, spec))
            point[name] = value if contains(axis.distribution, value) else axis.default
        return point

    def idle(self, spec: TrialSpec) -> list[str]:
        """Names of the axes that have no effect on a trial, as activation bits where nothing is quantized."""
        off = {*idle(spec, bool(spec.layers))} - {"outer_full"}
        return [name for name, axis in self.axes.items() if self._is_idle(axis, spec, off)]

    def anchors(self) -> Iterator[Point]:
        """All full, all binary, all ternary, ...; then head and first block full with the rest binary."""
        weights = {name: axis for name, axis in self.axes.items() if axis.field == "weights"}
        kinds = dict.fromkeys(kind for axis in weights.values() for kind in choices(axis.distribution))
        default = self.default
        for kind in kinds or [None]:
            allowed = (name for name, axis in weights.items() if contains(axis.distribution, kind))
            yield default | dict.fromkeys(allowed, kind)
        outer = {name for name in weights if name.startswith(("head.", "block0."))}
        if outer and {"full", "binary"} <= set(kinds):
            yield default | {name: "full" if name in outer else "binary" for name in weights}

    def _value(self, axis: Axis, spec: TrialSpec) -> Any:
        """What a trial has on an axis."""
        if axis.owner == "trial":
            return getattr(spec, axis.field)
        if axis.field == "outer_full":  # visible only in which layers are quantized
            inner_only = bool(spec.layers) and not any(map(is_outer, spec.layers))
            return inner_only and any(map(is_outer, self.groups))
        if axis.owner == "recipe":
            return getattr(spec.recipe, axis.field)
        layers = _layers(axis, spec)
        if axis.field == "weights":
            return layers[0].weights if layers else "full"
        usual = USUAL[axis.field]  # layers share the value of an axis, except where it has no effect
        return next((v for layer in layers if (v := getattr(layer, axis.field)) != usual), usual)

    def _is_idle(self, axis: Axis, spec: TrialSpec, idle_in_recipe: set[str]) -> bool:
        if axis.owner == "recipe":
            return axis.field in idle_in_recipe
        if axis.owner == "trial" or axis.field == "weights":
            return False
        layers = _layers(axis, spec) or ([LayerSpec()] if axis.owner == "layer group" else [])
        return all(axis.field in idle_in(layer) for layer in layers)


def _layers(axis: Axis, spec: TrialSpec) -> list[LayerSpec]:
    """The quantized layers of a trial that have their value from an axis."""
    if axis.owner == "layers":
        return [*spec.layers.values()]
    return [spec.layers[axis.group]] if axis.group in spec.layers else []


def _in_point(value: Value | None) -> Value:
    """A field's value as points and TOML files have it."""
    return "none" if value is None else value


def _axes(study: StudySpec, groups: list[str]) -> Iterator[Axis]:
    """The axes that vary."""
    space = study.space
    for field, values in space.layer.items():
        if isinstance(values, Each):
            if distribution := _distribution(LayerSpec, field, values):
                yield from (Axis("layer group", field, distribution, group) for group in groups)
        elif distribution := _distribution(LayerSpec, field, values):
            yield Axis("layers", field, distribution)
    for field, values in space.recipe.items():
        if distribution := _distribution(Recipe, field, values):
            yield Axis("recipe", field, distribution)
    if distribution := _distribution(TrialSpec, "fraction", space.fraction):
        yield Axis("trial", "fraction", distribution)


def _distribution(spec: type[Spec], field: str, values: Any) -> BaseDistribution | None:
    """The distribution of a field's values in a search space; None where the value is fixed."""
    if isinstance(values, Range):
        between = values.low + (values.high - values.low) / math.pi
        is_integer = not accepts(spec, field, between)
        kind = IntDistribution if is_integer else FloatDistribution
        return kind(values.low, values.high, log=values.log)
    if isinstance(values, Each):
        return CategoricalDistribution(values.each)
    return CategoricalDistribution(values) if isinstance(values, tuple) else None
