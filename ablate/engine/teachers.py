"""The external teachers of a study, loaded and checked before anything is trained."""

from torch import nn

from ablate.config.recipe_values import recipe_values, teachers, with_recipe_values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models import loading, locating
from ablate.models.preprocessing import Preprocess
from ablate.training.external_teacher import check_teacher, load_teacher


def with_absolute_teachers(study: StudySpec) -> StudySpec:
    """The study with the names of its teachers for every working directory, as of `locating.absolute`."""

    def absolute(name: str | None) -> str | None:
        return name if name in (None, "none") else locating.absolute(name)

    return with_recipe_values(study, "teacher", absolute)


def check_teachers(
    study: StudySpec, model: nn.Module, preprocess: Preprocess, classes: list[str]
) -> dict[str, str]:
    """Load a study's external teachers, and check that they can teach its model.

    Args:
        study: The study.
        model: Its model, in full precision.
        preprocess: Its image processing.
        classes: Of the data, in order.

    Returns:
        What became of each teacher's head, by its name.

    Raises:
        BadInput: One of them cannot, or no trial distills.
    """
    names, heads = teachers(study), {}
    compares = float(any(recipe_values(study, "distill_blocks")))
    if names and not compares and not any(recipe_values(study, "distill")):
        rule = f"a teacher needs a recipe that distills, but distill is 0 wherever {names[0]!r} would teach"
        raise BadInput(f"{rule}; set distill = 0.5, say, or leave teacher out")
    for name in names:
        teacher, report = load_teacher(name, classes, preprocess)
        check_teacher(name, teacher, model, Recipe(distill=0.5, distill_blocks=compares), preprocess.size)
        heads[name] = f"{name}: {report.notes[0]}"
        if (size := loading.preprocess(name).size) != preprocess.size:
            sides = (f"{width} x {height}" for height, width in (preprocess.size, size))
            heads[name] += "; it sees the model's images of {}, resized to {}".format(*sides)
    return heads
