"""The study that a command runs: a study file with the command's options in place of its fields."""

from collections.abc import Mapping
from typing import Any

from ablate.config.designs import Step
from ablate.config.search_space import load_space, values, varies
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.errors import BadInput, short_repr

LENGTHS = ("epochs", "image_views")  # fields of a recipe that set how long a trial is trained


def override_study(name: str, overrides: dict[str, Any], epochs: int | None = None) -> StudySpec:
    """Load a study and replace some of its fields.

    Args:
        name: A built-in study's name, or the path of a TOML file.
        overrides: New values of StudySpec's fields; `space` is a name or a path. A dictionary for
            `early_stopping` is merged into the study's own rule.
        epochs: The epochs of every trial after its `full_epochs`, in place of any other length that the study
            sets. None keeps its lengths.

    Raises:
        BadInput: A name is unknown, or the resulting study is invalid.
    """
    base, changes = load_study(name), dict(overrides)
    if base.design and "sampler" in changes:  # its default stands in studies of either kind
        got = short_repr(changes["sampler"])
        raise BadInput(f"--sampler is for a search, but got {got} for a design; leave it out")
    if "space" in changes:
        changes["space"] = load_space(changes["space"])
        changes.setdefault("objectives", ())  # those of the new space
    if "objectives" in changes:
        changes["described"] = {}  # of the objectives before
    if epochs is not None:
        changes |= _with_epochs(epochs, base.model_copy(update=changes))
    rule = changes.get("early_stopping")
    if isinstance(rule, dict) and base.early_stopping:
        same_axis = rule.get("over", base.early_stopping.over) == base.early_stopping.over
        # `first` and `rungs` count along the axis, so they do not carry over to another one.
        kept = base.early_stopping.model_dump(exclude=None if same_axis else {"first", "rungs"})
        changes["early_stopping"] = kept | rule
    given = {key: getattr(base, key) for key in base.model_fields_set}
    return checked(StudySpec, given | changes, "study")


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


def _with_epochs(epochs: int, study: StudySpec) -> dict[str, Any]:
    """The study's fields that set the length of a trial, with `epochs` in place of every length."""

    def without_length(step: Step) -> Step:
        shortened = {"recipe": _without(LENGTHS, step.recipe), "tune": _without(LENGTHS, step.tune)}
        return step.model_copy(update=shortened)

    return {
        "recipe": _without(LENGTHS, dict(study.recipe)) | {"epochs": epochs},
        "space": study.space.model_copy(update={"recipe": _without(LENGTHS, study.space.recipe)}),
        "tune": _without(LENGTHS, study.tune),
        "steps": tuple(map(without_length, study.steps)),
        "reference": study.reference and without_length(study.reference),
    }


def _without(names: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
