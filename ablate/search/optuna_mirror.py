"""A run as a study of Optuna that follows its ledger, for optuna-dashboard.

Optuna's storages take a parameter's choices from its first trial, so all of them must be known before: from
the space of a search, or from the planned trials of a design.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ablate.analysis.parameters import fields_of, parameters, shared_fields
from ablate.config.canonical import effective
from ablate.config.study_spec import StudySpec
from ablate.errors import BadInput
from ablate.labels import without_secrets
from ablate.paths import local_path
from ablate.runs import ledger
from ablate.runs.export import axis_of, frozen_trial
from ablate.runs.follow import alone, follow
from ablate.runs.ledger import trial_of
from ablate.runs.provenance_file import identity, read_provenance
from ablate.runs.record import Record, is_candidate
from ablate.runs.run import Run
from ablate.search.distributions import contains
from ablate.search.experiment_design import Design
from ablate.search.parameter_space import Points

RUN = "ablate.run"  # an attribute of the study: `identity` of the run
Axes = Mapping[str, BaseDistribution]
Parameters = Callable[[Record], dict[str, Any]]


def mirror(
    run: Run, storage: str, *, is_over: Callable[[], bool], wait: Callable[[float], object]
) -> tuple[int, int]:
    """Write a run's trials into a storage of Optuna as they are recorded; those that it has stay as they are.

    The study has the name of the run's folder. It has the trials that may be on the front.

    Args:
        run: The run.
        storage: A URL, as sqlite:///studies.db, or else the path of a file for Optuna's journal.
        is_over: Whether no more records come.
        wait: Is called with the seconds until the next look.

    Returns:
        How many trials were added, and how many there are.

    Raises:
        BadInput: The storage cannot be opened, or has a study of that name that is not of this run; or
            another process writes it.
    """
    with alone(f"{identity(run.path)} {storage}", f"{run.path.name!r} to {without_secrets(storage)}"):
        study = _open(run, storage)
        axes, parameters_of = _axes(run)
        known = {trial.user_attrs.get("trial_id") for trial in study.get_trials(deepcopy=False)}
        before = len(known)
        for record in follow(run.path / "ledger.jsonl", is_over, wait):
            if record["trial_id"] not in known and is_candidate(record["spec"], run.study):
                study.add_trial(_trial(parameters_of(record), axes, record, run.study))
                known.add(record["trial_id"])
        return len(known) - before, len(known)


def _open(run: Run, storage: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = run.study.directions
    try:
        study = optuna.create_study(
            storage=storage if "://" in storage else _journal(storage),
            study_name=run.path.name,
            directions=["maximize" if best == "max" else "minimize" for best in directions.values()],
            load_if_exists=True,
        )
        attributes = study.user_attrs
        if not attributes and not study.get_trials(deepcopy=False):
            study.set_user_attr(RUN, identity(run.path))
            study.set_user_attr("question", run.study.question)
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                study.set_metric_names(list(directions))
    except Exception as error:  # each database has its own
        reason = without_secrets(str(error).partition("\n")[0])
        raise BadInput(f"--to must be a storage that Optuna can open, but got {reason}") from None
    if study.user_attrs.get(RUN) != identity(run.path):
        rule = f"--to must have no study {run.path.name!r} of another run, but {without_secrets(storage)} has"
        raise BadInput(f"{rule}; give another storage")
    return study


def _journal(path: str) -> JournalStorage:
    """A file that takes a trial in milliseconds, where a database takes a tenth of a second."""
    return JournalStorage(JournalFileBackend(str(local_path(path).absolute())))


def _axes(run: Run) -> tuple[Axes, Parameters]:
    """The axes of a run, and a function that gives a record's values on them."""
    groups = read_provenance(run.path).get("layer_groups")
    if groups is None:  # a run of an older version
        records = ledger.read(run.path / "ledger.jsonl")
        groups = list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
    return _axes_of_design(run.study, groups) if run.study.design else _axes_of_search(run.study, groups)


def _axes_of_search(study: StudySpec, groups: list[str]) -> tuple[Axes, Parameters]:
    points = Points(study, groups)

    def values(record: Record) -> dict[str, Any]:
        spec = effective(trial_of(record))
        idle = points.idle(spec)
        return {name: value for name, value in points.point(spec).items() if name not in idle}

    return points.distributions, values


def _axes_of_design(study: StudySpec, groups: list[str]) -> tuple[Axes, Parameters]:
    specs = [spec.model_dump() for variants in Design(study, groups).planned for spec in variants]
    shared, columns = shared_fields(specs), parameters(pd.DataFrame({"spec": specs}))
    axes = {name: axis_of([value for value in columns[name] if value is not None]) for name in columns}

    def values(record: Record) -> dict[str, Any]:
        named = fields_of(record["spec"], groups, shared)
        kinds = {value for name, value in named.items() if name.endswith(".weights")}
        if "weights" in axes and len(kinds) == 1:  # all layer groups are alike in each trial
            named["weights"] = kinds.pop()
        return {name: named[name] for name in axes if name in named}

    return axes, values


def _trial(params: dict[str, Any], axes: Axes, record: Record, study: StudySpec) -> optuna.trial.FrozenTrial:
    """The trial; a range is widened for a value beyond it, as where a design extends a grid."""
    fitting = dict(axes)
    for name, value in list(params.items()):
        axis = axes[name]
        if contains(axis, value):
            continue
        if isinstance(axis, FloatDistribution) and isinstance(value, int | float):
            fitting[name] = FloatDistribution(min(axis.low, value), max(axis.high, value))
        else:
            del params[name]
    return frozen_trial(params, fitting, record, study)
