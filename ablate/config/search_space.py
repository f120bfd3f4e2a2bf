"""Search spaces: what may vary."""

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from ablate.config.builtin import load
from ablate.config.objectives import SPACE_OBJECTIVES, objective_faults
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, TrialSpec, Value, checked, fault, is_numeric
from ablate.errors import join_faults, short_repr, unknown


class Range(Spec):
    """A continuous or integer axis.

    Args:
        low: The lowest value, included.
        high: The highest value, included.
        log: Whether it is searched on a log scale.
    """

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            rule = "low < high must hold (and 0 < low with log)"
            raise ValueError(f"{rule}, but got low={self.low}, high={self.high}")
        return self


class Each(Spec):
    """Choices of an axis that is searched for each layer group by itself.

    Args:
        each: The choices.
    """

    each: Annotated[tuple[Value, ...], PlainValidator(lambda value: _choices(value))]


def _choices(value: Any) -> tuple[Value, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, Value) for item in value):
        raise ValueError(f"choices must be a list of one value or more, but got {short_repr(value)}")
    if len({(isinstance(item, bool), item) for item in value}) < len(value):  # 1 is 1.0, but not true
        raise ValueError(f"choices must differ, but got {short_repr(list(value))}")
    return tuple(value)


def _axis(value: Any) -> Any:
    """Return an axis: a scalar is fixed, a list is choices, a table with `each` is `Each`, else a range."""
    if isinstance(value, Value | Range | Each):
        return value
    if isinstance(value, dict):
        return checked(Each if "each" in value else Range, value, "axis")
    return _choices(value)


if TYPE_CHECKING:
    Axis = Value | tuple[Value, ...] | Range | Each
else:
    Axis = Annotated[Any, PlainValidator(_axis)]


class SpaceSpec(Spec):
    """A search space. An axis is a fixed value, a list of choices, a range, or `each` with choices by group.

    Args:
        name: The file's, by default.
        description: One line.
        objectives: Of a study that names none.
        groups: Shell-style patterns of layer-group names: the layers that [layer] applies to.
        layer: Axes for fields of `LayerSpec`.
        recipe: Axes for fields of `Recipe`, in place of the study's.
        fraction: Of the training images, above 0 and at most 1.
    """

    name: str = ""
    description: str
    objectives: tuple[str, ...] = SPACE_OBJECTIVES
    groups: tuple[str, ...] = Field(("*",), min_length=1)
    layer: dict[str, Axis]
    recipe: dict[str, Axis] = Field({})
    fraction: Axis = 1.0

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        faults = objective_faults(self.objectives)
        axes: list[tuple[type[Spec], str, Axis]] = [
            *((LayerSpec, key, axis) for key, axis in self.layer.items()),
            *((Recipe, key, axis) for key, axis in self.recipe.items()),
            (TrialSpec, "fraction", self.fraction),
        ]
        for spec, key, axis in axes:
            if key not in spec.model_fields:
                faults.append(str(unknown(f"{spec.__name__} field", key, spec.model_fields)))
                continue
            if isinstance(axis, Each) and spec is not LayerSpec:
                faults.append(f"{key}: only fields of [layer] can be decided by each layer group")
            if isinstance(axis, Range) and not is_numeric(spec, key):
                faults.append(f"{key}: a range must be of numbers; list the choices")
            else:
                faults += [f for value in values(axis) if (f := fault(spec, key, value))]
        if "auto" in values(self.recipe.get("bf16", False)):
            faults.append("recipe.bf16: a space must say true or false, but got 'auto'")
        if "weights" not in self.layer:
            faults.append("[layer] must say which `weights` a layer group may have")
        if faults:
            raise ValueError(join_faults(faults))
        return self


def varies(axis: Axis) -> bool:
    """Return whether an axis has more than one value."""
    return isinstance(axis, Range | Each) or (isinstance(axis, tuple) and len(axis) > 1)


def values(axis: Axis) -> tuple[Value, ...]:
    """Return the values named on an axis: the ends of a range, the choices of a list."""
    if isinstance(axis, Range):
        return (axis.low, axis.high)
    if isinstance(axis, Each):
        return axis.each
    return axis if isinstance(axis, tuple) else (axis,)


def load_space(name: str) -> SpaceSpec:
    """Load a search space.

    Args:
        name: Of a built-in one, or the path of a TOML file.

    Raises:
        BadInput: There is none, or it has faults; the message lists them.
    """
    return load(SpaceSpec, "search_spaces", "search space", name)
