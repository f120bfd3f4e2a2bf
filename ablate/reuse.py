"""Trials of other runs that a search need not train again."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablate import ledger
from ablate.effective import effective
from ablate.errors import BadInput
from ablate.ledger import Record
from ablate.plan import Plan, proposer_of
from ablate.run import Run, load_run, store
from ablate.search import Search
from ablate.spec import StudySpec, TrialSpec
from ablate.trial import trial_id

Known = dict[str, tuple[Record, Path]]  # trial id -> its record, and the folder of its run


def reuse(paths: Sequence[Path], planned: Plan) -> tuple[Plan, Known]:
    """The plan, its search taught with the complete trials of other runs that are points of its space, and those trials.

    They come on top of the study's own trials. Raises BadInput for a run that has none, with what differs.
    """
    study, search = planned.study, planned.search
    if paths and (not isinstance(search, Search) or study.timed):
        raise BadInput("--known is for a search without latency_ms, which is measured in each run anew; leave it out")
    known: Known = {}
    for path in paths:
        found = {}
        for record in ledger.read(load_run(path).path / "ledger.jsonl"):
            spec = TrialSpec.model_validate(record["spec"])
            own = record["status"] == "complete" and isinstance(search, Search) and search.holds(spec)
            if own and trial_id(spec, planned.dataset) == record["trial_id"]:
                found[record["trial_id"]] = (record, load_run(path).path)
        if not found:
            raise BadInput(f"--known must have a trial of this study's space, but {str(path)!r} has none: {_why(path, study)}")
        known |= found
    records = [record for record, _ in known.values()]
    study = study.model_copy(update={"trials": study.trials + len(known)})
    return replace(planned, study=study, search=proposer_of(study, search.groups, records, planned.count)), known


def adopt(run: Run, known: Known) -> None:
    """Copy trials with their files into a new run: the files first, the line last."""
    for name, (record, folder) in known.items():
        files = [folder / "predictions" / f"{name}.npz", *sorted((folder / "weights" / name).glob("*"))]
        try:
            for file in filter(Path.exists, files):
                store(run.path / file.relative_to(folder), file.read_bytes())
            ledger.append(run.path / "ledger.jsonl", record)
        except OSError as error:
            shutil.rmtree(run.path)
            raise BadInput(f"--known: the trials of {str(folder)!r} cannot be copied: {error.strerror}") from None


def _why(path: Path, study: StudySpec) -> str:
    """What keeps the trials of a run from being this study's."""
    records = [r for r in ledger.read(load_run(path).path / "ledger.jsonl") if r["status"] == "complete"]
    if not records:
        return "it has no complete trial"
    theirs = effective(TrialSpec.model_validate(records[-1]["spec"]))
    pairs = {name: (getattr(theirs, name), getattr(study, name)) for name in ("model", "data", "seed")}
    fixed = {key: value for key, value in study.recipe.model_dump().items() if key not in study.space.recipe}
    pairs |= {f"recipe.{key}": (getattr(theirs.recipe, key), value) for key, value in fixed.items()}
    told = [f"{name} is {their!r} there and {ours!r} here" for name, (their, ours) in pairs.items() if their != ours]
    return "; ".join(told[:4]) or "its layers or its contents are others"
