"""The values that a study gives a field of the recipe: in its recipe, space, tuning, steps and reference."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ablate.config.designs import Step
from ablate.config.search_space import values
from ablate.config.trial_spec import Value

if TYPE_CHECKING:
    from ablate.config.study_spec import StudySpec


def steps_of(study: "StudySpec") -> list[Step]:
    """The steps of a design, and its reference."""
    return [*study.steps, *([study.reference] if study.reference else [])]


def recipe_values(study: "StudySpec", field: str) -> list[Value]:
    """Every value that a study has for a field of the recipe.

    Args:
        study: The study.
        field: Of `Recipe`.

    Returns:
        The values, of a range both ends.
    """
    parts = [part for step in steps_of(study) for part in (step.recipe, step.tune)]
    recipes = [study.recipe.model_dump(), study.space.recipe, study.tune, *parts]
    return [value for recipe in recipes if field in recipe for value in values(recipe[field])]


def with_recipe_values(study: "StudySpec", field: str, change: Callable[[Any], Any]) -> "StudySpec":
    """Change every value that a study has for a field of the recipe.

    Args:
        study: The study.
        field: Of `Recipe`, not numeric.
        change: A value -> the new one. Choices that become equal are one.

    Returns:
        The study with the new values.
    """

    def axis(value: Any) -> Any:
        return tuple(dict.fromkeys(map(change, value))) if isinstance(value, tuple) else change(value)

    def recipe(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {key: axis(value) if key == field else value for key, value in fields.items()}

    def step(changed: Step) -> Step:
        return changed.model_copy(update={"recipe": recipe(changed.recipe), "tune": recipe(changed.tune)})

    parts = {
        "recipe": study.recipe.model_copy(update={field: change(getattr(study.recipe, field))}),
        "space": study.space.model_copy(update={"recipe": recipe(study.space.recipe)}),
        "tune": recipe(study.tune),
        "steps": tuple(map(step, study.steps)),
        "reference": study.reference and step(study.reference),
    }
    return study.model_copy(update=parts)


def teachers(study: "StudySpec") -> list[str]:
    """The names of a study's external teachers, in the order in which it gives them."""
    return [
        str(name) for name in dict.fromkeys(recipe_values(study, "teacher")) if name not in (None, "none")
    ]


def attention_widths(study: "StudySpec") -> list[int]:
    """The bits of a study's attention products, from the least, where they are quantized."""
    return sorted({bits for bits in recipe_values(study, "attention_bits") if isinstance(bits, int)})
