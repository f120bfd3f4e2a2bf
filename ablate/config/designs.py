"""The parts of a study: the designs that there are, their steps, and early stopping."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ablate.config.trial_spec import LayerSpec, Recipe, Spec, Value, fault
from ablate.errors import join_faults

Design = Literal["ladder", "leave-one-out", "one-factor", "arms", "factorial", "sensitivity", "grid"]
# How long a trial is trained, of which more is dearer and mostly better, and when it is validated: these are
# the study's to decide, and their grids are not extended.
LENGTHS = ("epochs", "full_epochs", "image_views", "validate_every")


class Step(Spec):
    """One change of a designed study.

    Args:
        name: What the cell is called in tables.
        source: Paper, section, figure.
        groups: Shell-style patterns, within those of the space, of the layer groups that are quantized from
            this step on. Empty: as before.
        layer: Fields of `LayerSpec` with their new values.
        recipe: Fields of `Recipe` with their new values.
        tune: Choices for fields of `Recipe` from this step on, in place of the study's.
    """

    name: str = Field(min_length=1)
    source: str = ""
    groups: tuple[str, ...] = ()
    layer: dict[str, Value] = Field({})
    recipe: dict[str, Value] = Field({})
    tune: dict[str, tuple[Value, ...]] = Field({})

    @model_validator(mode="after")
    def _changes_fit(self) -> Self:
        faults = [f for key, value in self.layer.items() if (f := fault(LayerSpec, key, value))]
        faults += [f for key, value in self.recipe.items() if (f := fault(Recipe, key, value))]
        if faults := faults + tune_faults(self.tune):
            raise ValueError(join_faults(faults))
        return self


class EarlyStopping(Spec):
    """Successive halving: which trials of a search end early. At each rung the best go on.

    Over `epochs` the rungs are after `first`, first * reduction, ... epochs. Over `fraction` each rung is a
    training of its own: first on 1 / reduction^rungs of the trial's images, then on `reduction` times as
    many, at last on all. The images of a rung are among those of the next one.

    Args:
        over: What grows from rung to rung, "epochs" or "fraction".
        reduction: The best 1 / reduction of the trials at a rung go on.
        first: Over epochs: the epochs before the first rung.
        rungs: Over fraction: the number of trainings on fewer images.
    """

    over: Literal["epochs", "fraction"] = "epochs"
    reduction: int = Field(3, ge=2, le=1000)
    first: int = Field(1, ge=1, le=100_000)
    rungs: int = Field(2, ge=1, le=10)

    @property
    def divisors(self) -> tuple[int, ...]:
        """The divisors of the trial's images, one for each rung over `fraction`, the smallest rung first."""
        return tuple(self.reduction**k for k in range(self.rungs, 0, -1)) if self.over == "fraction" else ()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        other = "rungs" if self.over == "epochs" else "first"
        if (given := getattr(self, other)) != type(self).model_fields[other].default:
            raise ValueError(
                f"{other} is not for early stopping over {self.over}, but got {given}; leave it out"
            )
        return self


def tune_faults(tune: dict[str, tuple[Value, ...]]) -> list[str]:
    """Return what is wrong with the choices of a recipe's fields, one line a fault."""
    rule = "choices must be a list of one value or more"
    empty = [f"tune.{key}: {rule}" for key, choices in tune.items() if not choices]
    named = [(key, value) for key, choices in tune.items() for value in choices]
    return empty + [f"tune.{f}" for key, value in named if (f := fault(Recipe, key, value))]
