"""The cells of a designed study: each is a trial without its seed and without what is tuned."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from optuna.distributions import CategoricalDistribution

from ablate.config.designs import Step
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec, Value
from ablate.errors import BadInput
from ablate.search.distributions import choices
from ablate.search.fractional_factorial import fraction
from ablate.search.parameter_space import Points

MAX_POINTS = 100_000  # of a design
MAX_TRIALS = 1_000_000
Tuned = dict[str, Any]  # a field of the recipe -> its value


@dataclass(frozen=True)
class Cell:
    """A trial without its seed and without what is tuned.

    Args:
        step: The cell's name without the space's choices.
        spec: The trial.
        tune: The values to choose from, by field of the recipe.
        fixed: Fields of the recipe that the cell's choices, or steps after those that say `tune`, have set.
    """

    step: str
    spec: TrialSpec
    tune: dict[str, tuple[Value, ...]]
    fixed: frozenset[str] = frozenset()

    @property
    def choices(self) -> list[Tuned]:
        """All combinations of the values to choose from; an empty one where nothing is tuned."""
        return [dict(zip(self.tune, point, strict=True)) for point in itertools.product(*self.tune.values())]

    @property
    def tunings(self) -> list[Tuned]:
        """The choices where there is more than one, so that trials must decide."""
        return self.choices if len(self.choices) > 1 else []


def cells_of(study: StudySpec, groups: list[str]) -> dict[str, Cell]:
    """The cells of a study's design.

    Args:
        study: The study, with a design.
        groups: Names of the layer groups that its space applies to.

    Returns:
        The cells by name, in the order of the design; with wsd, the shorter trainings first.

    Raises:
        BadInput: There are too many cells, two of one name, or some that are no trial; or an axis is a range.
    """
    cells: dict[str, Cell] = {}
    for name, cell in sorted(_all_cells(study, groups), key=_length):
        if name in cells:
            raise BadInput(
                f"the cells of a design must differ in their names, but two are called {name!r}; rename one"
            )
        cells[name] = cell
    _check_count(study, cells.values())
    return cells


def _length(cell: tuple[str, Cell]) -> tuple[bool, int]:
    """By which cells are sorted: a longer trial with wsd goes on from where a shorter one began its decay."""
    recipe = cell[1].spec.recipe
    if recipe.schedule != "wsd":
        return False, 0
    return recipe.image_views is not None, recipe.image_views or recipe.epochs


def _all_cells(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, Cell]]:
    if "sensitivity" in study.design:
        yield from _sensitivity(study, groups)
    cells = itertools.chain.from_iterable(
        _after_steps(study, groups, name, steps) for name, steps in _variants(study)
    )
    for number, cell in enumerate(cells):
        if number == MAX_POINTS:
            raise BadInput(
                f"a design must have {MAX_POINTS:,} cells at most, but got more; take fewer steps or choices"
            )
        yield cell


def _variants(study: StudySpec) -> Iterator[tuple[str, Sequence[Step]]]:
    """The steps that are applied together, by name."""
    steps, designs = study.steps, {*study.design}
    if {"ladder", "one-factor"} & designs:
        yield study.base, ()
    if "ladder" in designs:
        yield from ((step.name, steps[: i + 1]) for i, step in enumerate(steps))
    if "leave-one-out" in designs:
        yield "all", steps
        yield from ((f"all but: {out.name}", [step for step in steps if step != out]) for out in steps)
    # In a ladder the step's name is that of a rung.
    if "one-factor" in designs or {"ladder", "arms"} <= designs:
        yield from ((f"only: {step.name}", [step]) for step in steps)
    if {"arms", "grid"} & designs and "ladder" not in designs:
        yield from ((step.name, [step]) for step in steps)
    if "factorial" in designs:
        yield "", ()
    if study.reference:
        yield study.reference.name, (*steps, study.reference)


def _check_count(study: StudySpec, cells: Iterable[Cell]) -> None:
    """Raises BadInput where a design has too many trials."""
    tunings = (math.prod(map(len, cell.tune.values())) for cell in cells)
    least = 0 if "grid" in study.design else 1  # choices of a cell that need no tuning
    count = sum(study.seeds + (study.tuning_seeds * n if n > least else 0) for n in tunings)
    if count > MAX_TRIALS:
        rule = f"a design must have {MAX_TRIALS:,} trials at most, but got {count:,}"
        raise BadInput(f"{rule}; take fewer seeds, cells or tunings")


def _sensitivity(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, Cell]]:
    """All full; in each precision all layer groups, each alone, all but each; other axes at their default."""
    kinds = [str(kind) for kind in values(study.space.layer["weights"]) if kind != "full"]
    if not kinds:
        rule = "a sensitivity design needs a space whose layers may be less than full"
        raise BadInput(f"{rule}; give --space layers_bits, say")
    variants: dict[str, dict[str, str]] = {"full": {}}
    for kind in kinds:
        every = dict.fromkeys(groups, kind)
        variants[f"{kind}: all"] = every
        variants |= {f"{kind}: only {group}": {group: kind} for group in groups}
        variants |= {f"{kind}: all but {group}": every | {group: "full"} for group in groups}
    points = Points(study, groups)
    for name, weights in variants.items():
        chosen = {f"{group}.weights": weights.get(group, "full") for group in groups}
        if (spec := points.spec_at(points.default | chosen)) is None:
            raise _impossible(name)
        yield name, Cell(name, spec, study.tune)


def _after_steps(
    study: StudySpec, groups: list[str], name: str, steps: Sequence[Step]
) -> Iterator[tuple[str, Cell]]:
    """The base point after some steps, crossed with the space's choices; none if no layer group matches."""
    patterns = next((step.groups for step in reversed(steps) if step.groups), ("*",))
    matched = [group for group in groups if any(fnmatchcase(group, pattern) for pattern in patterns)]
    if groups and not matched:  # the groups are those of a run whose records have none of the step's yet
        return
    last = max((i for i, step in enumerate(steps) if step.tune), default=None)
    tune = study.tune if last is None else steps[last].tune
    points = Points(_changed(study, steps), matched)
    axes = {axis: _listed(axis, distribution) for axis, distribution in points.distributions.items()}
    varied = {axis.field for axis in points.axes.values() if axis.owner == "recipe"}
    fixed = frozenset(varied.union(*(step.recipe for step in steps[last or 0 :])))
    specs = {}
    for combination in _combinations(axes, None if name else study.points):
        point = dict(zip(axes, combination, strict=True))
        parts = ([name] if name else []) + [f"{axis} {value}" for axis, value in point.items()]
        specs[", ".join(parts)] = points.spec_at(point)
    if not any(specs.values()):
        raise _impossible(name)
    yield from ((cell, Cell(name, spec, tune, fixed)) for cell, spec in specs.items() if spec)


def _changed(study: StudySpec, steps: Sequence[Step]) -> StudySpec:
    """A study with the fields of its space changed by steps."""
    layer = {key: value for step in steps for key, value in step.layer.items()}
    recipe = {key: value for step in steps for key, value in step.recipe.items()}
    changes = {"layer": study.space.layer | layer, "recipe": study.space.recipe | recipe}
    return study.model_copy(update={"space": study.space.model_copy(update=changes)})


def _listed(name: str, distribution: Any) -> tuple[Value, ...]:
    if not isinstance(distribution, CategoricalDistribution):
        rule = f"a design must list the choices of {name}, but got a range"
        raise BadInput(f"{rule}; only a search has ranges")
    return choices(distribution)


def _combinations(axes: Mapping[str, Sequence[Value]], points: int | None) -> Iterable[tuple[Value, ...]]:
    """All combinations of the axes' choices; with `points` a regular fraction of so many."""
    if points is None:
        if (count := math.prod(map(len, axes.values()))) > MAX_POINTS:
            rule = f"a design must have {MAX_POINTS:,} points at most, but got {count:,}"
            raise BadInput(f"{rule}; give points = 64, say")
        return itertools.product(*axes.values())
    if wrong := next((name for name, listed in axes.items() if len(listed) != 2), None):
        rule = f"points takes a fraction of factors of 2 choices, but {wrong} has {len(axes[wrong])}"
        raise BadInput(f"{rule}; leave points out")
    levels, _ = fraction(len(axes), points)
    return (
        tuple(listed[level] for listed, level in zip(axes.values(), row, strict=True))
        for row in levels.astype(int)
    )


def _impossible(cell: str) -> BadInput:
    return BadInput(f"cell {cell!r} of the design must be a trial, but its values exclude each other")
