"""A run goes on after any end. Ray starts while the heavy modules are imported and the study is planned."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import HERE, Resources
from ablate.runs import ledger
from ablate.runs.claim import reclaimed
from ablate.runs.record import Record
from ablate.runs.run import Run, load_run, write_study

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
) -> tuple[Run, int]:
    """Go on with a run after any end, up to `trials` and `hours` in all.

    The run, and the bytes of a torn last line that were cut off.
    Raises BadInput when the path holds no run, when its driver is alive, when `trials` is below what is recorded,
    and when the dataset or the model is not what it was.
    """
    run = load_run(path)
    with reclaimed(run):
        torn = ledger.recover(run.path / "ledger.jsonl")
        length = (run.path / "ledger.jsonl").stat().st_size
        study = _extended(run, {"trials": trials, "hours": hours})
        ray_cluster.check_address(resources.address)
        with ThreadPoolExecutor(1) as pool:
            planning = pool.submit(_planned, study, run.path, resources.storage)
            with ray_cluster.connected(resources) as (dashboard, resources):
                planned, records, storage = planning.result()
                writer = ray_cluster.writer_of(run.path)
                if (
                    run.path / "ledger.jsonl"
                ).stat().st_size != length:  # on another host, whose lock is not seen here
                    raise BadInput(
                        f"RUN must have no live driver, but another wrote to {str(run.path)!r} just now; try again"
                    )
                write_study(run.path, planned.study)
                from ablate.engine.run_study import drive
                from ablate.runs.provenance import add_resume

                add_resume(run.path, planned.contents)
                return drive(
                    Run(run.path), planned, records, writer, storage, resources, dashboard, view
                ), torn


def _extended(run: Run, given: dict[str, Any]) -> StudySpec:
    """The run's study with other limits."""
    if given["trials"] is not None and run.study.design:
        raise BadInput(
            f"--trials extends a search, but the trials of a design are its {run.study.trials}; leave it out"
        )
    changed = {key: value for key, value in given.items() if value is not None}
    study = checked(StudySpec, {**dict(run.study), **changed}, "options")
    made, spent = len(run.searched), run.state.get("spent", 0.0)
    left = made < study.trials or len(run.records) < run.state.get("trials", 0)
    if left and study.hours is not None and spent >= study.hours * 3600:
        spent_hours = f"the {spent / 3600:.2g} that the run has spent"
        raise BadInput(f"--hours must be above {spent_hours}, but got {study.hours:g}; give more")
    if study.trials < made:
        raise BadInput(
            f"--trials must be at least the {made} trials that are recorded, but got {given['trials']}"
        )
    return study


def _planned(
    study: StudySpec, path: Path, storage: str | None
) -> "tuple[Plan, list[Record], Storage | None]":
    from ablate.engine.plan import plan
    from ablate.runs.provenance import check_contents
    from ablate.training.checkpoint_store import Storage

    records = ledger.read(path / "ledger.jsonl")
    planned = plan(study, records)
    check_contents(path, planned.contents)
    return planned, records, Storage.tried(storage) if storage else None
