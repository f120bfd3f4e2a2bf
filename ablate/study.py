"""A study from its question to its front: joins the search, the cluster and the run's folder."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ablate import cluster, data, ledger, models, trial
from ablate.analysis import paired, pareto
from ablate.cluster import Resources
from ablate.design import Design
from ablate.distribute import distribute
from ablate.driver import Driver, View
from ablate.errors import AblateError, BadInput, Interrupted, Unwritten
from ablate.plan import plan
from ablate.run import RUNS, Run, check_idle, check_vacant, create_run, load_run, write_study
from ablate.spec import StudySpec, checked, load_study
from ablate.storage import Storage
from ablate.timing import layer_latencies, measure_front
from ablate.train import resolve
from ablate.words import how_to_go_on

HERE = Resources()  # a Ray of our own on this machine
PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "safetensors", "thop")


def run_study(
    study: StudySpec | str, out: str | Path | None = None, *, resources: Resources = HERE, view: View | None = None
) -> Run:
    """Search the study's space and return the run, finished: its ledger, its front and its figures.

    Raises BadInput before anything is written; what fails in a trial is in the trial's record.
    """
    study = load_study(study) if isinstance(study, str) else study
    name = re.sub(r"[^\w.-]+", "-", study.space.name)
    path = Path(out or RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{name}").absolute()
    check_vacant(path)
    cluster.check_address(resources.address)
    storage = Storage(resources.storage) if resources.storage else None
    planned = plan(study)
    with cluster.connected(resources) as (dashboard, resources):
        if resources.address and study.recipe.bf16 == "auto":  # decided by the hardware of the trials, not of the driver
            there = cluster.alone(resources, resolve, study.recipe)
            planned = plan(study.model_copy(update={"recipe": there})) if there != planned.study.recipe else planned
        run = create_run(path, planned.study, _provenance(planned.dataset))
        writer = cluster.writer_of(path)
        return _drive(Driver(run, planned.search, [], resources, dashboard, view), planned.dataset, writer, storage, resources)


def resume_study(
    path: str | Path,
    *,
    trials: int | None = None,
    hours: float | None = None,
    resources: Resources = HERE,
    view: View | None = None,
) -> tuple[Run, int]:
    """Go on with a run after any end, up to `trials` and `hours` in all.

    The run, and the bytes of a torn last line that were cut off.
    Raises BadInput when the path holds no run, when its driver is alive, and when `trials` is below what is recorded.
    """
    run = load_run(path)
    check_idle(run)
    torn = ledger.recover(run.path / "ledger.jsonl")
    records = ledger.read(run.path / "ledger.jsonl")
    if trials is not None and run.study.design:
        raise BadInput(f"--trials extends a search, but the trials of a design are its {run.study.trials}; leave it out")
    given = {"trials": trials, "hours": hours}
    study = checked(
        StudySpec, {**dict(run.study), **{key: value for key, value in given.items() if value is not None}}, "options"
    )
    if study.trials < len(records):
        raise BadInput(f"--trials must be at least the {len(records)} trials that are recorded, but got {trials}")
    cluster.check_address(resources.address)
    storage = Storage(resources.storage) if resources.storage else None
    with ThreadPoolExecutor(1) as pool:
        planning = pool.submit(plan, study, records)  # while Ray starts
        with cluster.connected(resources) as (dashboard, resources):
            planned = planning.result()
            writer = cluster.writer_of(run.path)
            if len(ledger.read(run.path / "ledger.jsonl")) != len(records):
                raise BadInput(f"RUN must have no live driver, but another wrote to {str(run.path)!r} just now; try again")
            write_study(run.path, planned.study)
            driver = Driver(Run(run.path), planned.search, records, resources, dashboard, view)
            return _drive(driver, planned.dataset, writer, storage, resources), torn


def _drive(driver: Driver, dataset: data.Dataset, writer: Any, storage: Storage | None, resources: Resources) -> Run:
    """Distribute the trials that are left. The first Ctrl-C ends after the running epochs, the second at once."""
    beat = partial(driver.watch, [], 0, 0)  # a driver elsewhere is told from a dead one by its heartbeat
    run, status, timed = driver.run, "interrupted", "latency_ms" in driver.study.objectives
    try:
        with driver.interruptible():
            table = layer_latencies(run, dataset.classes, resources, beat) if timed else None
            files = models.files(driver.study.model) if resources.address else {}
            distribute(
                driver.ask,
                driver.tell,
                driver.watch,
                stop=lambda: driver.stopped,
                steps=partial(trial.worker_steps, dataset=dataset, table=table, files=files),
                path=run.path,
                writer=writer,
                storage=storage,
                resources=resources,
            )
        if driver.stopped:
            raise KeyboardInterrupt
        if timed:
            measure_front(run, pd.DataFrame(driver.front), resources, beat)
        status = "exhausted" if driver.exhausted else "finished"
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {how_to_go_on(driver.state)}", run.path) from None
    except Unwritten as error:
        status = "failed"
        raise AblateError(f"the study stopped: {error}; {how_to_go_on(driver.state)}") from None
    except AblateError:
        raise
    except Exception as error:
        status = "failed"
        raise AblateError(f"the study stopped: {type(error).__name__}: {error}; {how_to_go_on(driver.state)}") from error
    finally:
        with suppress(OSError):  # a full disk must not hide what went wrong
            driver.end(status)
            shutil.rmtree(run.path / ".tune", ignore_errors=True)
            finish(Run(run.path))
    return Run(run.path)


def finish(run: Run) -> Run:
    """Write what can be rebuilt from the ledger: the front as a table, and its figure."""
    from ablate.paper_figures import fig_pareto

    objectives = run.study.objectives
    (run.path / "tables").mkdir(exist_ok=True)
    front = pareto.front_of(run.records, run.study.directions)
    front = front.assign(**{column: front[column].map(json.dumps) for column in ("spec", "curve")})
    front.to_csv(run.path / "tables" / "front.csv", index=False)
    trials = run.records[run.records["status"] == "complete"]
    if len(trials):
        on = {
            key: pareto.front_of(trials, {name: run.study.directions[name] for name in names}).index
            for key, names in (("front", objectives), ("stairs", objectives[:2]))
        }
        trials = trials.assign(**{key: trials.index.isin(rows) for key, rows in on.items()}, label=_labels(trials))
        title = f"{Path(run.study.model).name} on {Path(run.study.data).name}, {len(trials)} trials, seed {run.study.seed}"
        fig_pareto.draw(trials, objectives, title, run.path / "figures" / "pareto")
    if run.study.design:
        _finish_design(run)
    return run


def _finish_design(run: Run) -> None:
    """The design's cells as tables; with steps, rung by rung, and their figure."""
    from ablate.paper_figures import fig_ladder

    study, records = run.study, run.records.to_dict("records")
    groups = list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
    table = Design(study, groups, records).table()
    table.to_csv(run.path / "tables" / "design.csv", index=False)
    if "ladder" in study.design and table["test_accuracy"].notna().any():
        reference = study.reference.name if study.reference else None
        rungs = paired.ladder(table, [step.name for step in study.steps], reference)
        rungs.to_csv(run.path / "tables" / "ladder.csv", index=False)
        title = f"{Path(study.model).name} on {Path(study.data).name}, {rungs['n'].max()} paired seeds, mean and 95 % interval"
        seeds = paired.by_seed(table, "test_accuracy")
        fig_ladder.draw(rungs.dropna(subset="mean"), seeds, title, run.path / "figures" / "ladder", reference)


def _labels(trials: pd.DataFrame) -> list[str]:
    """Names for the anchors: the first trials in which all layer groups that were ever quantized are of one kind."""
    groups = {group for spec in trials["spec"] for group in spec["layers"]}
    uniform = trials["spec"].map(lambda spec: not spec["layers"] or set(spec["layers"]) == groups)
    uniform &= ~trials["arm"].str.contains("+", regex=False)
    first = uniform & ~trials[uniform].duplicated("arm").reindex(trials.index, fill_value=False)
    return [f"all {arm}" if anchor else "" for arm, anchor in zip(trials["arm"], first, strict=True)]


def _provenance(dataset: data.Dataset) -> dict[str, Any]:
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "hardware": {"device": trial.device_name(), "cpus": os.cpu_count(), "system": platform.platform()},
        "dataset_sha256": dataset.digest,
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    """The commit of this package's own checkout; None for an installed package, and without git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return git.stdout.strip() or None
