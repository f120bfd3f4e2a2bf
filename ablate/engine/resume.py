"""Continues a run, however it ended. Ray starts while heavy modules are imported and the study is planned."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import HERE, Resources
from ablate.runs import ledger
from ablate.runs.claim import reclaimed
from ablate.runs.record import Record
from ablate.runs.run import Run, load_run, write_study
from ablate.tracking.destination import installed

if TYPE_CHECKING:
    from ablate.engine.controller import View
    from ablate.engine.plan import Plan
    from ablate.training.checkpoint_store import Storage


def resume_study(
    path: str | Path,
    *,
    trials: int | None = None,
    hours: float | None = None,
    resources: Resources = HERE,
    view: "View | None" = None,
    track: Sequence[str] = (),
) -> tuple[Run, int]:
    """Continue a run, however it ended.

    Args:
        path: The run's folder.
        trials: Trials of the search in all; None: as many as before.
        hours: Hours of the run in all; None: as many as before.
        resources: Which Ray, and what a trial may use of it.
        view: Is called once a second with the run's state and its records. One that raises is dropped.
        track: Trackers that follow the ledger: "mlflow", "tensorboard" or "wandb", each with a place after a
            colon or without. One that fails stops nothing.

    Returns:
        The run, and how many bytes of a torn last line were cut off.

    Raises:
        BadInput: The path holds no run, its driver is alive, `trials` or `hours` is below what the run has,
            or the study, the dataset or the model has changed, or energies were measured on another device.
        AblateError: The study fails; the message says how to continue.
        Interrupted: Ctrl-C ended the study; the message says how to continue.
    """
    run, destinations = load_run(path), [installed(text) for text in track]
    with reclaimed(run):
        lines = run.path / "ledger.jsonl"
        lines.touch()  # a run that was killed before its first trial may have none
        torn = ledger.recover(lines)
        length = lines.stat().st_size
        study = _extended(run, trials, hours)
        ray_cluster.check_address(resources.address)
        if "energy_mj" in study.objectives:
            from ablate.engine.energy_check import check_device, check_energy

            check_energy(study, resources)
        with ThreadPoolExecutor(1) as pool:
            planning = pool.submit(_planned, study, run.path, resources.storage)
            with ray_cluster.connected(resources) as (dashboard, resources):
                planned, records, storage = planning.result()
                if "energy_mj" in study.objectives:
                    check_energy(study, resources, on_cluster=True)
                    check_device(study, records, resources)
                with ray_cluster.writer_for(run.path) as writer:
                    # A driver on another host may have written, whose lock is not visible here.
                    if lines.stat().st_size != length:
                        rule = (
                            f"RUN must have no live driver, but another wrote to {str(run.path)!r} just now"
                        )
                        raise BadInput(f"{rule}; try again")
                    write_study(run.path, planned.study)
                    from ablate.engine.drive import Session, drive
                    from ablate.runs.provenance import add_resume
                    from ablate.runs.same_study import study_fields

                    add_resume(run.path, planned.contents | {"study": study_fields(planned.study)})
                    session = Session(writer, storage, resources, dashboard, view, destinations)
                    return drive(Run(run.path), planned, records, session), torn


def _extended(run: Run, trials: int | None, hours: float | None) -> StudySpec:
    """The run's study with other limits."""
    if trials is not None and run.study.design:
        raise BadInput("--trials extends a search, but the trials of a design are its own; leave it out")
    limits = {"trials": trials, "hours": hours}
    changed = {name: limit for name, limit in limits.items() if limit is not None}
    study = checked(StudySpec, {**dict(run.study), **changed}, "options")
    recorded, spent = len(run.searched), run.state.get("spent", 0.0)
    trials_left = recorded < study.trials or len(run.records) < run.state.get("trials", 0)
    if trials_left and study.hours is not None and spent >= study.hours * 3600:
        spent_hours = f"the {spent / 3600:.2g} that the run has spent"
        raise BadInput(f"--hours must be above {spent_hours}, but got {study.hours:g}; give more")
    over = run.state.get("status") == "finished" and not (trials_left or study.confirm)
    if over and trials is None and hours is not None:
        rule = "--hours limits trials that are left, but the run has all of its"
        raise BadInput(f"{rule} {len(run.records)}; give --trials as well, or begin a new study")
    if study.trials < recorded and not study.design:  # one that is tuned may have grown
        raise BadInput(f"--trials must be at least the {recorded} trials that are recorded, but got {trials}")
    return study


def _planned(
    study: StudySpec, path: Path, storage: str | None
) -> "tuple[Plan, list[Record], Storage | None]":
    from ablate.engine.plan import plan
    from ablate.engine.same_records import check_records, relocated
    from ablate.runs.provenance import check_contents, keep_model
    from ablate.runs.same_study import check_same
    from ablate.training.checkpoint_store import Storage

    records = ledger.read(path / "ledger.jsonl")
    check_same(path, study, records)
    records = [relocated(record, study) for record in records]
    keep_model(path, study.model)
    planned = plan(study, records)
    check_contents(path, planned.contents)
    check_records(path, planned, records)
    return planned, records, Storage.tried(storage) if storage else None
