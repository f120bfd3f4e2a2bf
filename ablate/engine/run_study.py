"""A study from its question to its front: joins the search, the cluster and the run's folder."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec, load_study
from ablate.engine.controller import Driver, View
from ablate.engine.gate import gate
from ablate.engine.latency_stage import layer_latencies, measure_front
from ablate.engine.plan import Plan, plan, proposer_of
from ablate.engine.warm_start import adopt, reuse
from ablate.errors import AblateError, BadInput, Interrupted
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import HERE, Resources
from ablate.execution.tune_runner import distribute
from ablate.hardware import native_bf16
from ablate.models import locating
from ablate.reporting import design_findings, figures
from ablate.reporting.findings import write_tables
from ablate.reporting.run_results import RunResults
from ablate.reporting.search_findings import confirmed, front
from ablate.runs.claim import claimed
from ablate.runs.provenance import provenance
from ablate.runs.record import Record
from ablate.runs.run import Run, create_run
from ablate.runs.state import how_to_go_on
from ablate.training import trial_runner
from ablate.training.checkpoint_store import Storage
from ablate.training.trainer import resolve


def run_study(
    study: StudySpec | str,
    out: str | Path | None = None,
    *,
    known: Sequence[Path] = (),
    resources: Resources = HERE,
    view: View | None = None,
) -> Run:
    """Search the study's space, or train its design, and return the run, finished: its ledger, its front and its figures.

    study: a spec, a built-in name or the path of a TOML file. out: the run's folder, new or empty; a new one below runs/
    by default. It is claimed at first, and as it was before when the study does not begin.
    resources: which Ray, and what a trial has of it. view: is told how it goes.
    known: runs whose trials count as done where they are points of the study; its own trials come on top of them.
    Raises BadInput before the study begins, AblateError when it fails, and Interrupted after Ctrl-C, both with how to go
    on; what fails in a trial is in the trial's record.
    """
    study = load_study(study) if isinstance(study, str) else study
    with claimed(out, re.sub(r"[^\w.-]+", "-", study.space.name or study.name)) as path:
        ray_cluster.check_address(resources.address)
        storage = Storage.tried(resources.storage) if resources.storage else None
        planned = plan(study)
        checks = gate(planned)
        with ray_cluster.connected(resources) as (dashboard, resources):
            if (
                resources.address and study.recipe.bf16 == "auto"
            ):  # decided by the hardware of the trials, not of the driver
                there = ray_cluster.alone(resources, resolve, study.recipe)
                if there != planned.study.recipe:
                    planned = plan(study.model_copy(update={"recipe": there}))
            planned, found = reuse(known, planned)
            adopt(path, found)
            about: dict[str, Any] = planned.contents | {
                "classes": list(planned.dataset.classes),
                "layer_groups": planned.search.groups,
            }
            about |= {"checks": [asdict(check) for check in checks]}
            run = create_run(path, planned.study, provenance() | about)
            writer, records = ray_cluster.writer_of(path), [record for record, _ in found.values()]
            for check in checks:
                if check.notable:
                    print(f"{check.about.capitalize()}: {check.found}.", file=sys.stderr)
            return drive(run, planned, records, writer, storage, resources, dashboard, view)


def drive(
    run: Run,
    planned: Plan,
    records: list[Record],
    writer: Any,
    storage: Storage | None,
    resources: Resources,
    dashboard: str,
    view: View | None,
) -> Run:
    """Distribute the trials that are left. The first Ctrl-C ends after the running epochs, the second at once.

    Ray must be connected, and `planned` know the records.
    """
    say_if_slow(planned.study, resources)
    for notice in planned.notices:
        print(notice, file=sys.stderr)
    driver = Driver(run, planned, records, resources, dashboard, view)
    beat = partial(driver.watch, [], 0, 0)  # a driver elsewhere is told from a dead one by its heartbeat
    study, dataset, status, reason, begun = driver.study, planned.dataset, "interrupted", "", False
    try:
        driver.show([])
        with driver.interruptible():
            files = locating.files(study.model) if resources.address else {}
            table = layer_latencies(run, dataset.classes, files, resources, beat) if study.timed else None
            if study.max_latency_ms is not None:
                count = replace(planned.count, table=table)
                driver.search = proposer_of(planned.study, planned.search.groups, driver.records, count)
            rungs, begun = study.early_stopping.one_in if study.early_stopping else (), True
            distribute(
                driver.ask,
                driver.tell,
                driver.watch,
                stop=lambda: driver.stopped,
                steps=partial(
                    trial_runner.worker_steps, dataset=dataset, table=table, files=files, rungs=rungs
                ),
                path=run.path,
                writer=writer,
                storage=storage,
                judge=driver.judge if study.early_stopping else None,
                resources=resources,
            )
        if driver.stopped:
            raise KeyboardInterrupt
        if study.timed and driver.front:
            front = pd.DataFrame(driver.front, columns=["trial_id", "latency_ms"])
            measure_front(run, front, dataset.classes, files, resources, beat)
        status = "exhausted" if driver.exhausted else "finished"
    except KeyboardInterrupt:
        with suppress(Exception):
            driver.show([])  # what ended in the last second is no longer under way
        raise Interrupted(f"interrupted; {how_to_go_on(driver.state)}", run.path) from None
    except Exception as error:
        status, reason = "failed", _reason(error)
        if isinstance(error, BadInput) and not begun:
            raise
        raise AblateError(f"the study stopped: {reason}; {how_to_go_on(driver.state)}") from error
    finally:
        _end(run, driver, status, reason)
    return Run(run.path)


def _end(run: Run, driver: Driver, status: str, reason: str) -> None:
    """The last words, tables and figures. What goes wrong now does not hide what went wrong before."""
    try:
        driver.end(status, reason)
        shutil.rmtree(run.path / ".tune", ignore_errors=True)
        finish(Run(run.path))
    except Exception as error:
        if status in ("finished", "exhausted"):
            mend = f"`ablate figures {shlex.quote(str(run.path))}` writes them"
            raise AblateError(
                f"the study is over, but not all tables and figures are: {_reason(error)}; {mend}"
            ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in a line."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, AblateError) else f"{type(error).__name__}: {text}"


def say_if_slow(study: StudySpec, resources: Resources) -> None:
    """Say on stderr that bf16 = true is emulated here, as where a run goes on on another machine."""
    asked = study.recipe.bf16 is True or True in values(study.space.recipe.get("bf16", False))
    if asked and not resources.address and not native_bf16():
        print(
            "The recipe says bf16 = true, but this CPU has no bfloat16 instructions: a trial will take many times as long. "
            "Go on where there are some, or start anew with bf16 = false.",
            file=sys.stderr,
        )


def finish(run: Run) -> Run:
    """Write what can be rebuilt from the ledger in a moment: the front and the design, as tables and figures."""
    results = RunResults(run)
    found = {"front": front(results), "confirmed": confirmed(results)}
    found |= {
        "ladder": design_findings.ladder(results),
        "sensitivity": design_findings.sensitivity(results),
        "cells": design_findings.cells(results),
    }
    write_tables(found, run.path / "tables")
    figures.draw(run, found)
    return run
