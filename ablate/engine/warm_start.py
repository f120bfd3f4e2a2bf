"""Trials of other runs that a search or a design need not train again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ablate.config.canonical import effective
from ablate.config.own_objectives import compute
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.engine.plan import Plan, proposer_of
from ablate.errors import BadInput, write_error
from ablate.files import write_atomic
from ablate.models.digests import forget_kept
from ablate.runs import ledger
from ablate.runs.ledger import trial_of
from ablate.runs.provenance import keep_model
from ablate.runs.record import Record, value_of
from ablate.runs.run import check_idle, load_run
from ablate.search.experiment_design import Design
from ablate.search.searcher import Search
from ablate.training.trial import trial_id

Known = dict[str, tuple[Record, Path]]  # trial id -> its record, and the folder of its run
MAX_DIFFERENCES = 4  # that a message names


def reuse(paths: Sequence[Path], planned: Plan) -> tuple[Plan, Known]:
    """Teach a plan's search the complete trials of other runs that are points of its space.

    They come on top of the study's own trials. A design counts those that are its own as done.

    Args:
        paths: The folders of the other runs.
        planned: The study's plan.

    Returns:
        The plan with the search that knows these trials, and the trials.

    Raises:
        BadInput: A run has no such trial (the message says what differs), or has a live driver; or the study
            has latency as an objective.
    """
    if not paths:
        return planned, {}
    study, search = planned.study, planned.search
    if study.timed:
        rule = "--known is for a study without latency_ms, which is measured in each run anew"
        raise BadInput(f"{rule}; leave it out")
    known: Known = {}
    for path in paths:
        known |= _known_of(path, planned, search)
    records = [record for record, _ in known.values()]
    if isinstance(search, Search):
        study = study.model_copy(update={"trials": study.trials + len(known)})
    search = proposer_of(study, search.groups, records, planned.count)
    return replace(planned, study=study, search=search), known


def _known_of(path: Path, planned: Plan, search: Search | Design) -> Known:
    """The complete trials of a run that a search or a design has, too."""
    run = load_run(path)
    check_idle(run)
    records = ledger.read(run.path / "ledger.jsonl")
    complete = [
        _with_own_objectives(record, planned.study) for record in records if record["status"] == "complete"
    ]
    complete = [  # older runs, and those that did not ask for it, lack what is measured
        record
        for record in complete
        if all(value_of(record, name) is not None for name in planned.study.objectives)
    ]
    specs = [effective(trial_of(record)) for record in complete]
    keep_model(run.path, planned.study.model)
    try:
        known = {
            record["trial_id"]: (record, run.path)
            for record, spec in zip(complete, specs, strict=True)
            if search.holds(spec) and trial_id(spec, planned.dataset) == record["trial_id"]
        }
    finally:
        forget_kept()  # the study's own trials have ids of today
    if not known:
        reason = difference(specs[-1], search) if specs else "it has no complete trial with every objective"
        rule = f"--known must have a trial of this study, but {str(run.path)!r} has none"
        raise BadInput(f"{rule}: {reason}")
    return known


def _with_own_objectives(record: Record, study: StudySpec) -> Record:
    """The record with the values of the study's own objectives, which another study may not have computed."""
    missing = [name for name in study.own_objectives if value_of(record, name) is None]
    return cast(Record, {**record, **{name: compute(name, record) for name in missing}})


def adopt(path: Path, known: Known) -> None:
    """Copy trials with their files to the folder of a run that is about to begin.

    Args:
        path: The folder.
        known: The trials.

    Raises:
        BadInput: The folder cannot be written.
        WriteFailed: The disk is full or broken.
    """
    try:
        for name, (_, folder) in known.items():
            weights = sorted((folder / "weights" / name).glob("*"))
            for file in (folder / "predictions" / f"{name}.npz", *weights):
                if file.exists():
                    write_atomic(path / file.relative_to(folder), file.read_bytes())
        write_atomic(path / "ledger.jsonl", b"".join(ledger.line(record) for record, _ in known.values()))
    except OSError as error:
        message = f"--known: its trials cannot be copied to {str(path)!r}: {error.strerror}; free some space"
        raise write_error(error, message) from None


def difference(theirs: TrialSpec, search: Search | Design) -> str:
    """What keeps a trial from being a point of a space: its difference to the nearest point."""
    if isinstance(search, Design):
        return "none is of this design's cells and seeds, with the contents of its dataset and model"
    ours = search.points.spec_at(search.points.point(theirs))
    if ours is None:
        return "the values of its axes exclude each other here"
    if ours == theirs:
        return "the contents of its dataset or model differ"
    trial_fields = [name for name in TrialSpec.model_fields if name not in ("recipe", "layers")]
    fields = [(name, getattr(theirs, name), getattr(ours, name)) for name in trial_fields]
    fields += [
        (f"recipe.{name}", getattr(theirs.recipe, name), getattr(ours.recipe, name))
        for name in Recipe.model_fields
    ]
    differences = [
        f"{name} is {their!r} there and {our!r} here" for name, their, our in fields if their != our
    ]
    return "; ".join(differences[:MAX_DIFFERENCES]) or "its layers have other fields"
