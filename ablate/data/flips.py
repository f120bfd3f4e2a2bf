"""Decides a study's augmentation: where classes are each other's mirror images, `true` augments nothing."""

from collections.abc import Sequence
from typing import Any

from ablate.config.recipe_values import with_recipe_values
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
    return with_recipe_values(study, "augment", lambda value: augmentation(value, mirrored))


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
