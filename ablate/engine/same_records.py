"""Whether a run's trials are those of its study, by the trials alone: for runs that record no study."""

from collections.abc import Sequence
from pathlib import Path

from ablate.config.canonical import effective
from ablate.config.recipe_values import teachers
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.engine.plan import Plan
from ablate.engine.warm_start import difference
from ablate.runs.ledger import trial_of
from ablate.runs.provenance_file import read_provenance
from ablate.runs.record import Record
from ablate.runs.same_study import edited
from ablate.search.confirmation import is_searched
from ablate.search.searcher import Search
from ablate.training.trial import trial_id


def check_records(path: Path, planned: Plan, records: Sequence[Record]) -> None:
    """Check that a run's trials are points of its study, and of the same data and model.

    Args:
        path: The run's folder. Nothing is checked where its provenance.json records the same.
        planned: The study's plan.
        records: The run's records.

    Raises:
        BadInput: A trial is of another study; the message says what differs.
    """
    known, study = read_provenance(path), planned.study
    for record in records:
        spec = effective(trial_of(relocated(record, study)))
        fault = "" if "study" in known else _outside(planned, spec, is_searched(record))
        is_unchecked = not fault and "model_sha256" not in known
        if is_unchecked and trial_id(spec, planned.dataset) != record["trial_id"]:
            fault = "its dataset or its model was another one"
        if fault:
            raise edited(path, [f"trial {record['trial_id']} is none of its trials: {fault}"])


def relocated(record: Record, study: StudySpec) -> Record:
    """A run's record with the model, the data and the external teacher of its study: folders may have moved.

    Args:
        record: Of the run. It stays as it is.
        study: Of the run. Where it has several teachers, they keep their names.

    Returns:
        The record.
    """
    spec = record["spec"] | {"model": study.model, "data": study.data}
    if len(names := teachers(study)) == 1 and spec["recipe"].get("teacher"):
        spec["recipe"] = spec["recipe"] | {"teacher": names[0]}
    return {**record, "spec": spec}


def _outside(planned: Plan, spec: TrialSpec, searched: bool) -> str:
    """Why a trial is no point of a search's space, or has none of a design's seeds; "" where it is."""
    study, search = planned.study, planned.search
    if isinstance(search, Search):
        return difference(spec, search) if searched and not search.holds(spec) else ""
    last = study.seed + study.seeds + study.tuning_seeds - 1
    if study.seed <= spec.seed <= last:
        return ""
    return f"seed is {spec.seed} there and {study.seed} to {last} here"
