"""The study that a command runs: a study file with the command's options in place of its fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.cli.assignments import Assignment, assign, check_once
from ablate.config.builtin import recipe_tables
from ablate.config.search_space import load_space, values, varies
from ablate.config.study_spec import StudySpec, read_study
from ablate.config.trial_spec import checked
from ablate.errors import BadInput, short_repr

LENGTHS = ("epochs", "image_views")  # fields of a recipe that set how long a trial is trained
OF_SENSITIVITY = ("space", "objectives", "model", "data", "seed", "recipe")  # what it takes from a study


def override_study(
    name: str,
    overrides: dict[str, Any],
    epochs: int | None = None,
    assignments: Sequence[Assignment] = (),
) -> StudySpec:
    """Load a study and replace some of its fields.

    Args:
        name: A built-in study's name, or the path of a TOML file.
        overrides: New values of StudySpec's fields; `space` is a name or a path. A dictionary for
            `early_stopping` is merged into the study's own rule.
        epochs: The epochs of every trial after its `full_epochs`, in place of any other length that the study
            sets. None keeps its lengths.
        assignments: Of `--set`.

    Raises:
        BadInput: A name is unknown, something is set twice, or the resulting study is invalid.
    """
    check_once(assignments, overrides)
    if epochs is not None and (length := next(filter(_is_length, assignments), None)):
        rule = "--epochs replaces every length of a study"
        raise BadInput(f"{rule}, but --set {'.'.join(length[0])} sets one; leave one out")
    file, study = read_study(name)
    changes = dict(overrides)
    if "space" in changes:
        study["space"] = _as_table(changes.pop("space"))
        study["objectives"] = []  # those of the new space
    elif isinstance(study.get("space"), str) and (epochs is not None or assignments):
        try:
            study["space"] = _as_table(study["space"])
        except BadInput as error:
            raise BadInput(f"{file}: {error}") from None
    assign(study, assignments)
    if isinstance(stopping := changes.get("early_stopping"), dict):
        changes["early_stopping"] = _merged(study.get("early_stopping"), stopping)
    if {"space", "objectives"} & {*overrides, *(path[0] for path, _ in assignments)}:
        study.pop("described", None)  # of the objectives before
    study |= changes
    if epochs is not None:
        _set_epochs(study, epochs)
    if study.get("design") not in (None, "none", "search", []) and "sampler" in changes:
        # Its default stands in studies of either kind.
        got = short_repr(changes["sampler"])
        raise BadInput(f"--sampler is for a search, but got {got} for a design; leave it out")
    return checked(StudySpec, study, f"{file} with options" if overrides or assignments else file)


def _as_table(space: str) -> dict[str, Any]:
    """A search space as a table whose fields can be set."""
    return load_space(space).model_dump(exclude_unset=True)


def _is_length(assignment: Assignment, lengths: Sequence[str] = LENGTHS) -> bool:
    """Whether an assignment says how long trials are trained."""
    path, value = assignment
    return not {path[-1], *(value if isinstance(value, dict) else ())}.isdisjoint(lengths)


def _merged(own: Any, rule: dict[str, Any]) -> dict[str, Any]:
    """A study's own rule of early stopping with what options change of it."""
    if not isinstance(own, dict):
        return rule
    axis = own.get("over", "epochs")
    # `first` and `rungs` count along the axis, so they do not carry over to another one.
    other = () if rule.get("over", axis) == axis else ("first", "rungs")
    return _without(other, own) | rule


def check_used(assignments: Sequence[Assignment], as_study: bool) -> None:
    """Check that a sensitivity analysis uses what `--set` sets of a study.

    Args:
        assignments: Of `--set`.
        as_study: Whether it trains by the study's own recipe.

    Raises:
        BadInput: It replaces a field that is set, or has none of that name.
    """
    for path, value in assignments:
        if path[0] in StudySpec.model_fields and path[0] not in OF_SENSITIVITY:
            takes = ", ".join(OF_SENSITIVITY)
            raise BadInput(
                f"a sensitivity analysis takes {takes} from a study, but --set sets {path[0]}; leave it out"
            )
        if not as_study and _is_length((path, value), (*LENGTHS, "full_epochs")):
            rule = "a sensitivity analysis trains for --epochs after --full-epochs"
            raise BadInput(f"{rule}, but --set sets {'.'.join(path)}; give these options, or --as-study")


def sensitivity_study(
    base: StudySpec, seeds: int, epochs: int | None, full_epochs: int | None, as_study: bool
) -> StudySpec:
    """Derive a sensitivity analysis from a study's space, model, data and recipe.

    Args:
        base: The study.
        seeds: The number of paired seeds.
        epochs: Epochs after the layers are quantized. None means 1.
        full_epochs: Epochs in full precision before, once per seed. None means as many as the study has in
            all, whose epochs must be one number then.
        as_study: Train by the study's own recipe instead.

    Raises:
        BadInput: `as_study` is combined with epochs, the study has no one number of epochs, or the resulting
            study is invalid.
    """
    if as_study and (epochs, full_epochs) != (None, None):
        raise BadInput(
            "--as-study trains by the study's own recipe; leave out --epochs and --full-epochs, or --as-study"
        )
    recipe, space = base.recipe.model_dump(), base.space
    if not as_study:
        length = {
            "epochs": 1 if epochs is None else epochs,
            "full_epochs": _epochs(base) if full_epochs is None else full_epochs,
            "image_views": None,
        }
        recipe |= length
        space = space.model_copy(update={"recipe": _without(length, space.recipe)})
    study = {
        "name": "sensitivity",
        "question": "What does each layer group cost, one at a time?",
        "space": space,
        "objectives": base.objectives,
        "model": base.model,
        "data": base.data,
        "seed": base.seed,
        "seeds": seeds,
        "recipe": recipe,
        "design": "sensitivity",
    }
    return checked(StudySpec, study, "options")


def _epochs(study: StudySpec) -> int:
    """The epochs of a study's trials, in full precision and after. Raises BadInput where they vary."""
    recipe = {**dict(study.recipe), **study.space.recipe}
    fields = ("full_epochs", "epochs")
    if recipe["image_views"] not in (None, "none"):
        field = "image_views"
    elif (varying := next((name for name in fields if varies(recipe[name])), None)) is not None:
        field = varying
    else:
        return sum(int(values(recipe[name])[0]) for name in fields)
    got = " or ".join(
        f"{value:g}" if isinstance(value, float) else str(value) for value in values(recipe[field])
    )
    rule = "--full-epochs is by default what the study has in all, which must be one number"
    raise BadInput(f"{rule}, but its {field} is {got}; give --full-epochs 2, say")


def _set_epochs(study: dict[str, Any], epochs: int) -> None:
    """Set the epochs of a study's plain data, in place of every other length of its trials."""
    for table in recipe_tables(study):
        for name in LENGTHS:
            table.pop(name, None)
    if isinstance(recipe := study.setdefault("recipe", {}), dict):
        recipe["epochs"] = epochs


def _without(names: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
