"""Decides a study's augmentation: where classes are each other's mirror images, `true` augments nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.config.designs import Step
from ablate.config.study_spec import StudySpec
from ablate.data.mirrored import Augment, augmentation

Pairs = Sequence[tuple[str, str]]


def decided(study: StudySpec, mirrored: Pairs) -> StudySpec:
    """Decide every `augment` of a study for data with mirrored classes.

    Args:
        study: Its recipe, space, tuned values, steps and reference may each set `augment`.
        mirrored: Pairs of classes that are each other's mirror images.

    Returns:
        The study with the decided values.
    """

    def axis(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(dict.fromkeys(augmentation(choice, mirrored) for choice in value))
        return augmentation(value, mirrored)

    def recipe(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {key: axis(value) if key == "augment" else value for key, value in fields.items()}

    def step(change: Step) -> Step:
        return change.model_copy(update={"recipe": recipe(change.recipe), "tune": recipe(change.tune)})

    parts = {
        "recipe": study.recipe.model_copy(update={"augment": axis(study.recipe.augment)}),
        "space": study.space.model_copy(update={"recipe": recipe(study.space.recipe)}),
        "tune": recipe(study.tune),
        "steps": tuple(map(step, study.steps)),
        "reference": study.reference and step(study.reference),
    }
    return study.model_copy(update=parts)


def notice(values: Sequence[Augment | Any], mirrored: Pairs) -> str:
    """Write what a user should know about augmentation on data with mirrored classes.

    Args:
        values: Every value of `augment` that a study has.
        mirrored: Pairs of classes that are each other's mirror images.

    Returns:
        A sentence; "" where there is nothing to say.
    """
    if not mirrored:
        return ""
    (a, b), more = mirrored[0], f" (and {len(mirrored) - 1} more pairs)" if len(mirrored) > 1 else ""
    pairs = f"The classes {a!r} and {b!r}{more} are mirror images of each other"
    if any(value is True for value in values):
        others = "'shift' shifts without flips, 'both' does both"
        return f"{pairs}, so recipe.augment = true augments nothing here; {others}."
    if {"both", "flip"} & {*values}:
        return f"{pairs}, and flips in training mix them up; recipe.augment = 'shift' leaves the flips out."
    return ""
