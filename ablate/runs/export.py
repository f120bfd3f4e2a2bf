"""Copies of a run for elsewhere: a trial's packed model, and the run as a study of Optuna."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ablate.analysis.bounds import excess
from ablate.config.study_spec import StudySpec
from ablate.errors import BadInput, write_error
from ablate.files import new_folder
from ablate.paths import local_path

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from ablate.runs.run import Run


def export_model(run: "Run", to: str | Path, trial: str | None, max_size_bytes: int | None) -> str:
    """Copy a packed model out of a run; see `Run.export`."""
    to, name = local_path(to), _chosen(run, trial, max_size_bytes)
    try:
        files = {file.name: file.read_bytes() for file in sorted((run.path / "weights" / name).iterdir())}
    except FileNotFoundError:
        raise BadInput(f"trial {name} has just left the front of {str(run.path)!r}; try again") from None
    rule = f"--to must be a new folder, but {str(to)!r}"
    try:
        if to.exists():
            raise BadInput(f"{rule} exists; give another")
        with new_folder(to) as folder:
            for file, content in files.items():
                (folder / file).write_bytes(content)
    except OSError as error:
        raise write_error(error, f"{rule} cannot be written: {error.strerror}; give another") from None
    return name


def _chosen(run: "Run", trial: str | None, max_size_bytes: int | None) -> str:
    """Return the id of the trial to copy."""
    kept = [folder.name for folder in sorted((run.path / "weights").glob("*"))]
    rows = run.candidates[run.candidates["trial_id"].isin(kept)].sort_values("accuracy")
    if (trial is None) == (max_size_bytes is None):
        raise BadInput("say which trial: give either --trial or --max-size-bytes")
    if trial is not None:
        rows = rows[rows["trial_id"].str.startswith(trial)]
        wanted = f"trial whose id starts with {trial!r}"
    else:
        rows = rows[rows["size_bytes"] <= max_size_bytes]
        wanted = f"trial of at most {max_size_bytes} bytes"
    if trial is not None and (len(rows) > 1 or not trial):
        raise BadInput(f"--trial must name one trial, but {trial!r} begins {', '.join(rows['trial_id'])}")
    if rows.empty:
        front = f"{str(run.path)!r} has the weights of its front only"
        raise BadInput(f"{front}, and no {wanted} is on it; on the front are {', '.join(kept) or 'none'}")
    return str(rows.iloc[-1]["trial_id"])


def to_optuna(run: "Run", storage: str) -> "optuna.Study":
    """Write a run as a study of Optuna; see `Run.to_optuna`."""
    import optuna  # takes a second, and scipy with it, which `status` must not wait for

    from ablate.analysis.parameters import parameters

    dialect, slashes, path = storage.partition("///")
    if path.startswith("~"):
        storage = f"{dialect}{slashes}{local_path(path)}"
    records, directions = run.candidates, run.study.directions
    points = parameters(records)
    axes = {name: axis_of([v for v in points[name] if v is not None]) for name in points}
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=run.path.name,
            directions=["maximize" if best == "max" else "minimize" for best in directions.values()],
        )
    except Exception as error:
        rule = f"storage must be a URL that Optuna can open, without a study {run.path.name!r}"
        reason = str(error).partition("\n")[0]
        raise BadInput(f"{rule}: {reason}") from None
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(list(directions))
    for point, record in zip(points.to_dict("records"), records.to_dict("records"), strict=True):
        params = {name: value for name, value in point.items() if value is not None}
        study.add_trial(frozen_trial(params, axes, record, run.study))
    return study


def frozen_trial(
    params: dict[str, Any],
    axes: Mapping[str, "BaseDistribution"],
    record: Mapping[str, Any],
    study: StudySpec,
) -> "optuna.trial.FrozenTrial":
    """Return a record as a trial of Optuna, with the study's bounds as constraints.

    Args:
        params: Its values, by the name of their axis.
        axes: The distributions of these, and maybe of others.
        record: The record.
        study: Of its run.
    """
    import optuna
    from optuna.trial import TrialState

    values = [record.get(name) for name in study.objectives]
    complete = record["status"] == "complete" and not any(pd.isna(value) for value in values)
    costs = {name: record[name] for name in study.within if not pd.isna(record.get(name))}
    ended = TrialState.PRUNED if record["status"] == "pruned" else TrialState.FAIL
    return optuna.create_trial(
        state=TrialState.COMPLETE if complete else ended,
        params=params,
        distributions={name: axes[name] for name in params},
        values=values if complete else None,
        user_attrs={"trial_id": record["trial_id"], "error": record["error"]},
        constraints=dict.fromkeys(study.within, 0.0) | excess(costs, study.within),
    )


def axis_of(values: list[Any]) -> "BaseDistribution":
    """Return a range for numbers, and choices for everything else."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(values)))
