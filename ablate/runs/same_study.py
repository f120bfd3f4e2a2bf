"""Whether a run's study is still the one that its trials were made by.

The study is recorded when the run begins. A run of an older version has its records alone.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ablate.config.canonical import asked
from ablate.config.recipe_values import steps_of, teachers, with_recipe_values
from ablate.config.study_spec import OLDER, StudySpec
from ablate.config.trial_spec import checked
from ablate.errors import BadInput, short_repr
from ablate.runs.ledger import trial_of
from ablate.runs.provenance_file import read_provenance
from ablate.runs.record import Record

MAX_DIFFERENCES = 4  # that a message names
# Texts and limits, which may change while a run goes on. The contents of model, data and teacher are compared
# by `check_contents`: their folders may move.
MAY_CHANGE = {"name", "question", "source", "cost", "expected", "command", "described", "model", "data"}
MAY_CHANGE |= {"trials", "hours", "max_size_bytes", "max_bitops", "max_latency_ms", "min_accuracy"}
MAY_CHANGE |= {"space.name", "space.description"}
TABLES = {"space.layer", "space.recipe", "tune"}  # of axes: an absent one is a difference


def check_same(path: Path, study: StudySpec, records: Iterable[Record]) -> None:
    """Check that a study, as RUN/study.toml has it now, is the one that the run's trials were made by.

    Args:
        path: The run's folder.
        study: The study.
        records: The run's records.

    Raises:
        BadInput: A field was changed; the message has it, before and after.
    """
    before = read_provenance(path).get("study")
    if isinstance(before, dict):
        then = _read(before)
        now = _with_name_of_teacher(study, then) if then else study
        found = _changes(study_fields(then) if then else before, study_fields(now))
    else:
        found = _changed_recipe(study, records)
    if changes := list(islice(found, MAX_DIFFERENCES)):
        raise edited(path, changes)


def edited(path: Path, changes: list[str]) -> BadInput:
    """Return the error for a run whose study.toml is not the study of its trials any more."""
    rule = f"{str(path / 'study.toml')!r} must be the study that the run's trials were made by"
    advice = "restore it, or take it as a new study with `ablate study STUDY --out NEW`"
    return BadInput(f"{rule}, but {'; '.join(changes)}; {advice}")


def study_fields(study: StudySpec) -> dict[str, Any]:
    """Return a study as plain data for provenance.json, by which `check_same` knows it again."""
    return dict(json.loads(json.dumps(study.model_dump())))


def _read(fields: dict[str, Any]) -> StudySpec | None:
    """A recorded study with the fields that its version did not have yet; None where it cannot be read."""
    ours = {name: value for name, value in fields.items() if name in StudySpec.model_fields}
    with suppress(BadInput):
        return checked(StudySpec, OLDER | ours, "provenance.json")
    return None


def _with_name_of_teacher(study: StudySpec, then: StudySpec) -> StudySpec:
    """The study with the name that its only external teacher had: its folder may have moved."""
    before, now = teachers(then), teachers(study)
    if not len(before) == len(now) == 1:
        return study
    return with_recipe_values(study, "teacher", lambda name: before[0] if name == now[0] else name)


def _changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Each field that differs. One that only another version has is left out."""
    if name in MAY_CHANGE or before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before | now if name in TABLES else [key for key in before if key in now]
        for key in keys:
            was, is_now = before.get(key, "absent"), now.get(key, "absent")
            yield from _changes(was, is_now, f"{name}.{key}" if name else key)
    else:
        yield f"{name} was {short_repr(before)} and is {short_repr(now)}"


def _changed_recipe(study: StudySpec, records: Iterable[Record]) -> Iterator[str]:
    """The fields of the recipe that nothing in the study varies, and that a record has otherwise."""
    steps = steps_of(study)
    varied = {"teacher"}.union(study.space.recipe, study.tune, *(step.recipe | step.tune for step in steps))
    ours = {name: value for name, value in study.recipe.model_dump().items() if name not in varied}
    seen = set()
    for record in records:
        spec = trial_of(record)
        again = spec.model_copy(update={"recipe": spec.recipe.model_copy(update=ours)})
        theirs, mine = (asked(each, exclude=set())["recipe"] for each in (spec, again))
        for name in dict.fromkeys([*theirs, *mine]):
            was, is_now = (recipe.get(name, "absent") for recipe in (theirs, mine))
            if was != is_now and name not in seen:
                seen.add(name)
                yield f"recipe.{name} was {was!r} in trial {record['trial_id']} and is {is_now!r}"
