"""Trials of other runs that a search need not train again."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablate.config.canonical import effective
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.engine.plan import Plan, proposer_of
from ablate.errors import BadInput, write_error
from ablate.files import write_atomic
from ablate.runs import ledger
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.runs.run import check_idle, load_run
from ablate.search.searcher import Search
from ablate.training.trial import trial_id

Known = dict[str, tuple[Record, Path]]  # trial id -> its record, and the folder of its run


def reuse(paths: Sequence[Path], planned: Plan) -> tuple[Plan, Known]:
    """The plan, its search taught with the complete trials of other runs that are points of its space, and those trials.

    They come on top of the study's own trials. Raises BadInput for a run that has none, with what differs, and for one
    that is under way.
    """
    if not paths:
        return planned, {}
    study, search = planned.study, planned.search
    if not isinstance(search, Search) or study.timed:
        raise BadInput(
            "--known is for a search without latency_ms, which is measured in each run anew; leave it out"
        )
    known: Known = {}
    for run in map(load_run, paths):
        check_idle(run)
        complete = [
            record for record in ledger.read(run.path / "ledger.jsonl") if record["status"] == "complete"
        ]
        specs = [effective(trial_of(record)) for record in complete]
        found = {
            record["trial_id"]: (record, run.path)
            for record, spec in zip(complete, specs, strict=True)
            if search.holds(spec) and trial_id(spec, planned.dataset) == record["trial_id"]
        }
        if not found:
            why = _difference(specs[-1], search) if specs else "it has no complete trial"
            raise BadInput(
                f"--known must have a trial of this study's space, but {str(run.path)!r} has none: {why}"
            )
        known |= found
    records = [record for record, _ in known.values()]
    study = study.model_copy(update={"trials": study.trials + len(known)})
    return replace(
        planned, study=study, search=proposer_of(study, search.groups, records, planned.count)
    ), known


def adopt(path: Path, known: Known) -> None:
    """Copy trials with their files to where a run will be, before the folder is one. The ledger stays the locked file."""
    try:
        for name, (_, folder) in known.items():
            for file in (
                folder / "predictions" / f"{name}.npz",
                *sorted((folder / "weights" / name).glob("*")),
            ):
                if file.exists():
                    write_atomic(path / file.relative_to(folder), file.read_bytes())
        with (path / "ledger.jsonl").open("wb") as lines:
            lines.writelines(ledger.line(record) for record, _ in known.values())
            lines.flush()
            os.fsync(lines.fileno())
    except OSError as error:
        message = f"--known: its trials cannot be copied to {str(path)!r}: {error.strerror}; free some space"
        raise write_error(error, message) from None


def _difference(theirs: TrialSpec, search: Search) -> str:
    """What keeps a trial from being a point of a space: its difference to the nearest one."""
    ours = search.points.spec_at(search.points.point(theirs))
    if ours is None or ours == theirs:
        return "its contents are others" if ours else "the values of its axes exclude each other here"
    fields = [
        (name, getattr(theirs, name), getattr(ours, name))
        for name in TrialSpec.model_fields
        if name != "recipe"
    ]
    fields += [
        (f"recipe.{name}", getattr(theirs.recipe, name), getattr(ours.recipe, name))
        for name in Recipe.model_fields
    ]
    told = [
        f"{name} is {their!r} there and {our!r} here"
        for name, their, our in fields
        if their != our and name != "layers"
    ]
    return "; ".join(told[:4]) or "its layers have other fields"
