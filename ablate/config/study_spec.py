"""A question that trials can answer: what is searched or compared, by which rules, at what cost."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ablate.config.builtin import load
from ablate.config.objectives import OBJECTIVES, SPACE_OBJECTIVES, Direction, objective_faults
from ablate.config.samplers import SamplerName
from ablate.config.search_space import SpaceSpec, load_space, values, varies
from ablate.config.trial_spec import LayerSpec, Recipe, Spec, Value, fault
from ablate.errors import together

Design = Literal["ladder", "leave-one-out", "one-factor", "arms", "factorial", "sensitivity"]


class Step(Spec):
    """One change of a designed study: fields of its layers and of its recipe with their new values.

    With `groups`, shell-style patterns as those of the space and within them, it is these layer groups that are quantized.
    """

    name: str = Field(min_length=1)
    source: str = ""  # paper, section, figure
    groups: tuple[str, ...] = ()  # from this step on
    layer: dict[str, Value] = Field({})  # fields of LayerSpec
    recipe: dict[str, Value] = Field({})  # fields of Recipe
    tune: dict[str, tuple[Value, ...]] = Field({})  # from this step on, in place of the study's

    @model_validator(mode="after")
    def _changes_fit(self) -> Self:
        faults = [f for key, value in self.layer.items() if (f := fault(LayerSpec, key, value))]
        faults += [f for key, value in self.recipe.items() if (f := fault(Recipe, key, value))]
        if faults := faults + _tune_faults(self.tune):
            raise ValueError(together(faults))
        return self


class EarlyStopping(Spec):
    """Which trials of a search end early: at each rung all but the best.

    Over `epochs` the rungs are after `first`, first * reduction, ... epochs. Over `fraction` a trial is trained on
    1 / reduction^rungs of its images first, then afresh on `reduction` times as many, and at last on all of them; the
    smaller trainings are its rungs, each by the whole recipe, on images that are among the next one's.
    """

    over: Literal["epochs", "fraction"] = "epochs"  # what grows from rung to rung
    reduction: int = Field(3, ge=2, le=1000)  # of those at a rung, the best 1 / reduction go on
    first: int = Field(1, ge=1)  # over epochs: those before the first rung
    rungs: int = Field(2, ge=1, le=10)  # over fraction: trainings on fewer images

    @property
    def one_in(self) -> tuple[int, ...]:
        """A rung over `fraction` each, the smallest first: of so many of a trial's images it takes one."""
        return tuple(self.reduction**k for k in range(self.rungs, 0, -1)) if self.over == "fraction" else ()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        other = "rungs" if self.over == "epochs" else "first"
        if (given := getattr(self, other)) != type(self).model_fields[other].default:
            raise ValueError(
                f"{other} is not for early stopping over {self.over}, but got {given}; leave it out"
            )
        return self


class StudySpec(Spec):
    """A question: a space, a model, a dataset, a recipe, objectives, a budget and a seed.

    With a `design` nothing is searched: each of its cells is trained with every one of the paired `seeds`, and tested.
    `ladder` takes the steps one after the other from the base point (the space's fixed values and the recipe),
    `leave-one-out` all steps but one, `one-factor` the base and each step alone, `arms` each step alone, and `factorial`
    none; all are crossed with the space's choices. Beside a ladder, whose rungs have the steps' names, the cells of `arms`
    are called "only: STEP". Of a factorial whose factors have two choices each, `points` takes a
    regular fraction, a power of two above the number of factors, that keeps their single effects apart. What is in `tune`
    is chosen for each cell by its validation on one more seed. `reference` is one more cell: all steps, and it.
    `sensitivity` takes each layer group in each precision, alone and left out alone; nothing of it is tested, so that a
    search may go on from it.
    """

    name: str = ""  # of the file, by default
    question: str  # what is asked
    source: str = ""  # who raised it: paper, section, figure
    cost: str = ""  # of running it
    expected: str = ""  # what it leaves, and where
    command: str = ""  # that runs it
    space: SpaceSpec  # what may vary: a table, a name or a path
    model: str = "vit-micro"  # a bundled name, a save_pretrained folder, or a hub name
    data: str = "cifar10-mini"  # a name, or "imagefolder:PATH"
    objectives: tuple[str, ...] = ()  # empty: the space's
    trials: int = Field(12, ge=1, le=1_000_000)  # of a search; a design has as many as it has
    hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # no trial starts after as many
    seed: int = Field(0, ge=0, lt=2**32)  # of the search and of each trial
    recipe: Recipe = Recipe()  # how each trial is trained
    design: tuple[Design, ...] = ()  # empty: a search
    points: Annotated[int, Field(ge=2, le=2**16)] | None = (
        None  # of a factorial: a regular fraction of so many; None: all of them
    )
    seeds: int = Field(1, ge=1, le=10_000)  # paired: seed, seed + 1, ...
    tune: dict[str, tuple[Value, ...]] = Field({})  # fields of the recipe
    base: str = Field(
        "base", min_length=1
    )  # what the base point is called, as the cell of a ladder or of one factor
    steps: tuple[Step, ...] = ()  # of the design
    reference: Step | None = None  # one more cell
    gap_margin: float = Field(
        0.01, gt=0, lt=1
    )  # a gap in accuracy at the largest training set that counts as none
    slope_margin: float = Field(
        0.01, gt=0, lt=1
    )  # a change of the gap, a decade of images, that counts as none
    sampler: SamplerName = (
        "additive"  # what proposes trials: one of the samplers below, or your own, module:name
    )
    early_stopping: EarlyStopping | None = None  # None: every trial runs to its end
    confirm: int = Field(0, ge=0, le=1000)  # further seeds for each member of the front, tested
    max_size_bytes: Annotated[int, Field(ge=1)] | None = None  # what is counted to be larger is not trained
    max_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        None  # sum of layers, at batch 1
    )
    min_accuracy: Annotated[float, Field(gt=0, le=1)] | None = (
        None  # validation; known once a trial has ended
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        """A space by name is loaded; without objectives of its own, a study has those of its space."""
        if not isinstance(data, dict) or "space" not in data:
            return data
        if isinstance(design := data.get("design"), str):
            data = {**data, "design": () if design == "search" else (design,)}
        space = load_space(data["space"]) if isinstance(data["space"], str) else data["space"]
        its = space.get("objectives") if isinstance(space, dict) else getattr(space, "objectives", None)
        asked = data.get("objectives", ())
        return {
            **data,
            "space": space,
            "objectives": (its or SPACE_OBJECTIVES) if asked in ((), []) else asked,
        }

    @property
    def directions(self) -> dict[str, Direction]:
        """Whether more or less of each objective is better."""
        return {name: OBJECTIVES[name] for name in self.objectives}

    @property
    def within(self) -> dict[str, float]:
        """The bounds that a trial must keep to be on the front."""
        bounds = {
            "size_bytes": self.max_size_bytes,
            "latency_ms": self.max_latency_ms,
            "accuracy": self.min_accuracy,
        }
        return {name: bound for name, bound in bounds.items() if bound is not None}

    @property
    def timed(self) -> bool:
        """Whether latency is measured."""
        return "latency_ms" in {*self.objectives, *self.within}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        faults = objective_faults(self.objectives)
        faults += _tune_faults(self.tune)
        if not self.design and (self.seeds > 1 or self.tune or self.steps or self.reference):
            faults.append(
                "seeds, tune, steps and reference are parts of a design; say which, as in design = ['ladder']"
            )
        if self.design and self.within:
            faults.append(
                "max_size_bytes, max_latency_ms and min_accuracy bound a search; a design trains all of its cells"
            )
        if self.design and self.sampler not in (
            "additive",
            "tpe",
        ):  # the default, and what it was when older runs were written
            faults.append(
                f"sampler is for a search; a design trains all of its cells, but got {self.sampler!r}"
            )
        if self.points and "factorial" not in self.design:
            faults.append(
                "points is how many a factorial design has; say design = 'factorial', or leave it out"
            )
        if self.seed + (self.seeds if self.design else self.confirm) >= 2**32:
            faults.append(f"seed must leave room below 2^32 for the further ones, but got {self.seed}")
        if self.early_stopping:
            faults += self._rung_faults(self.early_stopping)
        if self.design and self.confirm:
            faults.append("confirm is for a search; a design has seeds, which are tested")
        if "sensitivity" in self.design and (len(self.design) > 1 or self.reference):
            faults.append("a sensitivity design stands alone, without a reference")
        if bool(self.steps) != bool({*self.design} - {"factorial", "sensitivity"}):
            faults.append(
                "a ladder, a leave-one-out and a one-factor design need [[steps]], and only they do"
            )
        if "ladder" in self.design and any(
            map(varies, (*self.space.layer.values(), *self.space.recipe.values(), self.space.fraction))
        ):
            faults.append(
                "a ladder has one cell a rung: the values of its space must be fixed; design = ['arms'] crosses choices"
            )
        if len({self.base, *(step.name for step in self.steps)}) <= len(self.steps):
            faults.append("base and steps must differ in their names")
        if faults:
            raise ValueError(together(faults))
        return self

    def _rung_faults(self, rule: EarlyStopping) -> list[str]:
        faults = (
            ["early_stopping is for a search; a design trains all of its cells to the end"]
            if self.design
            else []
        )
        if not {"accuracy", "loss"} & {*self.objectives}:
            faults.append(
                f"early_stopping needs accuracy or loss among the objectives, but got {', '.join(self.objectives)}"
            )
        views = values(self.space.recipe.get("image_views", self.recipe.image_views or "none"))
        if rule.over == "fraction" and (some := [n for n in views if n != "none"]):
            saves = "saves nothing where recipe.image_views sets the steps whatever the images"
            faults.append(
                f"early_stopping over fraction {saves}, but got {some[0]}; set epochs, or stop over epochs"
            )
        given = dict(self.recipe) | dict(self.space.recipe)
        every, last = (
            min(map(float, values(given["validate_every"]))),
            max(map(float, values(given["epochs"]))),
        )
        first, few = (rule.first, f"its first {rule.first}") if rule.over == "epochs" else (0, "none")
        if given["image_views"] not in (None, "none"):  # set the epochs, by images that are not known here
            return faults
        if last <= first:
            faults.append(f"early_stopping needs more epochs than {few}, but got {last:g}")
        elif rule.over == "epochs" and last <= math.ceil(first / every) * every:
            needs = f"early_stopping needs a validation between its first rung, {first}, and the last epoch, {last:g}"
            faults.append(f"{needs}, but recipe.validate_every is {every:g}; set it to 1")
        return faults


def load_study(name: str) -> StudySpec:
    """A built-in study by its name, or one's own by the path of its TOML file."""
    return load(StudySpec, "studies", "study", name)


def _tune_faults(tune: dict[str, tuple[Value, ...]]) -> list[str]:
    empty = [
        f"tune.{key}: choices must be a list of one value or more"
        for key, choices in tune.items()
        if not choices
    ]
    return empty + [
        f"tune.{f}" for key, choices in tune.items() for value in choices if (f := fault(Recipe, key, value))
    ]
