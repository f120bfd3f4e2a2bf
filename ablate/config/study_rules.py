"""What must hold between the fields of a study."""

import math
from typing import TYPE_CHECKING

from ablate.config.designs import LENGTHS, EarlyStopping, tune_faults
from ablate.config.objectives import objective_faults
from ablate.config.own_objectives import register
from ablate.config.recipe_values import attention_widths
from ablate.config.search_space import values, varies
from ablate.errors import short_repr

if TYPE_CHECKING:
    from ablate.config.study_spec import StudySpec


def study_faults(study: "StudySpec") -> list[str]:
    """Return what is wrong with a study, one line a fault. It registers the objectives that are described."""
    faults = [
        *objective_faults(study.objectives),
        *_description_faults(study),
        *tune_faults(study.tune),
        *_latency_faults(study),
        *(_design_faults(study) if study.design else _search_faults(study)),
        *_step_faults(study),
        *(_rung_faults(study, study.early_stopping) if study.early_stopping else ()),
    ]
    of_search = study.confirm + study.anchor_seeds - 1
    more = study.seeds + study.tuning_seeds - 1 if study.design else of_search
    if study.seed + more >= 2**32:
        faults.append(f"seed must leave room below 2^32 for the further ones, but got {study.seed}")
    return faults


def _description_faults(study: "StudySpec") -> list[str]:
    if strangers := [name for name in study.described if name not in study.own_objectives]:
        return [f"described must be of the objectives, but got {strangers[0]!r}; leave it out"]
    for name, description in study.described.items():
        register(name, description)
    return []


def _latency_faults(study: "StudySpec") -> list[str]:
    if study.timed and attention_widths(study):
        rule = "latency_ms is a sum of parts, which does not change with attention_bits"
        return [f"{rule}; leave out one of the two"]
    return []


def _search_faults(study: "StudySpec") -> list[str]:
    faults = []
    if study.final and not study.confirm:
        rule = "final opens half B of the test images, but a search tests nothing without confirm"
        faults.append(f"{rule}; give --confirm 3, say, or leave final out")
    if study.seeds > 1 or study.tune or study.steps or study.reference:
        rule = "seeds, tune, steps and reference are parts of a design"
        faults.append(f"{rule}; say which, as in design = ['ladder']")
    return faults


def _design_faults(study: "StudySpec") -> list[str]:
    faults, all_cells = [], "a design trains all of its cells"
    if study.within:
        faults.append(
            f"max_size_bytes, max_bitops, max_latency_ms and min_accuracy bound a search; {all_cells}"
        )
    if study.sampler not in ("additive", "tpe"):  # the defaults of now and of older runs
        faults.append(f"sampler is for a search; {all_cells}, but got {study.sampler!r}")
    if study.anchor_seeds > 1:
        faults.append("anchor_seeds is for a search; a design has seeds")
    if study.confirm:
        faults.append("confirm is for a search; a design has seeds, which are tested")
    if "sensitivity" in study.design and (len(study.design) > 1 or study.reference):
        faults.append("a sensitivity design stands alone, without a reference")
    if "sensitivity" in study.design and study.final:
        rule = "final opens half B of the test images, but a sensitivity design tests nothing"
        faults.append(f"{rule}; leave it out")
    axes = (*study.space.layer.values(), *study.space.recipe.values(), study.space.fraction)
    if "ladder" in study.design and any(map(varies, axes)):
        rule = "a ladder has one cell a rung: the values of its space must be fixed"
        faults.append(f"{rule}; design = ['arms'] crosses choices")
    return faults + (_grid_faults(study) if "grid" in study.design else [])


def _grid_faults(study: "StudySpec") -> list[str]:
    faults, space = [], study.space
    if len(study.design) > 1 or study.reference:
        faults.append("a grid design stands alone, without a reference; leave the others out")
    axes = {"fraction": space.fraction, "image_views": space.recipe.get("image_views")}
    at = {str(name): ends for name, ends in study.tune_at.items()}
    for name, axis in axes.items():
        if not isinstance(axis, tuple) or len(axis) < 2 or not all(isinstance(n, int | float) for n in axis):
            faults.append(f"a grid needs two values of {name} or more, but got {short_repr(axis)}; list them")
        elif outside := [n for n in at.get(name, ()) if n not in axis]:
            faults.append(f"tune_at.{name} must be values of the grid, but got {outside[0]:g}")
    others = {**space.layer, **{key: axis for key, axis in space.recipe.items() if key not in axes}}
    if varied := [key for key, axis in others.items() if varies(axis)]:
        rule = "a grid varies fraction and recipe.image_views alone"
        faults.append(f"{rule}, but {varied[0]} has choices; make an arm of each, with [[steps]]")
    if lengthened := [step.name for step in study.steps if {"image_views", "epochs"} & {*step.recipe}]:
        faults.append(
            f"the arms of a grid have its lengths, but step {lengthened[0]!r} sets its own; leave it out"
        )
    tunes = (study.tune, *(step.tune for step in study.steps))
    for key, choices in [item for tune in tunes for item in tune.items()]:
        if any(isinstance(value, bool | str) or value <= 0 for value in choices):
            rule = f"a grid interpolates what is tuned, in logarithms: tune.{key} must be numbers above 0"
            faults.append(f"{rule}, but got {short_repr(list(choices))}; make an arm of each, with [[steps]]")
        if key in LENGTHS:
            faults.append(f"a grid varies the length of a trial, but tune has {key}; leave it out")
        if key == "batch_size":
            faults.append("a grid compares equal numbers of updates, but tune has batch_size; leave it out")
    return faults


def _step_faults(study: "StudySpec") -> list[str]:
    faults = []
    if study.points and "factorial" not in study.design:
        faults.append("points is how many a factorial design has; say design = 'factorial', or leave it out")
    if bool(study.steps) != bool({*study.design} - {"factorial", "sensitivity"}):
        faults.append("every design but a factorial and a sensitivity one needs [[steps]], and only they do")
    if len({study.base, *(step.name for step in study.steps)}) <= len(study.steps):
        faults.append("base and steps must differ in their names")
    if study.tune_at and "grid" not in study.design:
        faults.append("tune_at is for a grid; say design = 'grid', or leave it out")
    return faults


def _rung_faults(study: "StudySpec", rule: EarlyStopping) -> list[str]:
    faults = []
    if study.design:
        faults.append("early_stopping is for a search; a design trains all of its cells to the end")
    if not {"accuracy", "loss"} & {*study.objectives}:
        names = ", ".join(study.objectives)
        faults.append(f"early_stopping needs accuracy or loss among the objectives, but got {names}")
    views = values(study.space.recipe.get("image_views", study.recipe.image_views or "none"))
    if rule.over == "fraction" and (some := [n for n in views if n != "none"]):
        saves = "saves nothing where recipe.image_views sets the steps whatever the images"
        mend = "set epochs, or stop over epochs"
        faults.append(f"early_stopping over fraction {saves}, but got {some[0]}; {mend}")
    recipe = {**dict(study.recipe), **dict(study.space.recipe)}
    every = min(map(float, values(recipe["validate_every"])))
    last = max(map(float, values(recipe["epochs"])))
    first, few = (rule.first, f"its first {rule.first}") if rule.over == "epochs" else (0, "none")
    # The epochs follow from images that are not known here.
    if recipe["image_views"] not in (None, "none"):
        return faults
    if last <= first:
        faults.append(f"early_stopping needs more epochs than {few}, but got {last:g}; give --epochs 9, say")
    elif rule.over == "epochs" and last <= math.ceil(first / every) * every:
        needs = f"a validation between its first rung, {first}, and the last epoch, {last:g}"
        mend = f"but recipe.validate_every is {every:g}; set it to 1"
        faults.append(f"early_stopping needs {needs}, {mend}")
    return faults
