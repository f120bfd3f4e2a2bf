"""Drives a study whose run, plan and Ray are there: its stages, how it ends, and what it leaves."""

import logging
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import pandas as pd

from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.engine.controller import Driver, View
from ablate.engine.interruption import interruptible
from ablate.engine.latency_stage import layer_latencies, measure_front
from ablate.engine.plan import Plan, proposer_of
from ablate.errors import AblateError, BadInput, Interrupted
from ablate.execution.ray_cluster import Resources
from ablate.execution.shared_files import check_reachable
from ablate.execution.tune_runner import distribute
from ablate.hardware import native_bf16
from ablate.models import locating
from ablate.profiling.latency_table import LatencyTable
from ablate.reporting import design_findings, figures
from ablate.reporting.findings import write_tables
from ablate.reporting.front_findings import confirmed, front
from ablate.reporting.run_results import RunResults
from ablate.runs.log import logged
from ablate.runs.record import Record
from ablate.runs.run import Run
from ablate.runs.state import how_to_go_on
from ablate.tracking.destination import Destination
from ablate.tracking.follower import tracked
from ablate.training.checkpoint_store import Storage
from ablate.training.run_trial import worker_steps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What a driver has while Ray is connected.

    Attributes:
        writer: The run's one writer, an actor.
        storage: Where the state of unfinished trials is kept; None: nowhere.
        resources: What the study may use, resolved by the cluster.
        dashboard: URL of Ray's dashboard, or "".
        view: Is called once a second with the state and the records; None: nothing is shown.
        track: Where the run is tracked.
    """

    writer: Any
    storage: Storage | None
    resources: Resources
    dashboard: str = ""
    view: View | None = None
    track: Sequence[Destination] = ()


def drive(run: Run, planned: Plan, records: list[Record], session: Session) -> Run:
    """Run the trials that are left. The first Ctrl-C waits up to 10 s for the running epochs.

    Args:
        run: The run.
        planned: The study's plan, whose search knows `records`.
        records: The run's records so far.
        session: What the driver has while Ray is connected.

    Returns:
        The run with its records, tables and figures.

    Raises:
        BadInput: Something is wrong that shows before the first trial.
        AblateError: The study fails; the message says how to continue.
        Interrupted: Ctrl-C ended the study; the message says how to continue.
    """
    with logged(run.path), tracked(run, session.track):
        say_if_slow(planned.study, session.resources)
        for notice in planned.notices:
            log.warning(notice)
        driver = Driver(run, planned, records, session.resources, session.dashboard, session.view)
        ended_by: BaseException | None = None
        try:
            _run_stages(driver, planned, session)
        except BaseException as error:
            ended_by = error
            _raise_for_caller(driver, error)
        finally:
            _end(driver, *_status(driver, ended_by))
    return Run(run.path)


def _raise_for_caller(driver: Driver, error: BaseException) -> NoReturn:
    """Raise the exception that the caller gets: what happened, and how to continue."""
    if isinstance(error, KeyboardInterrupt):
        with suppress(Exception):
            driver.show([])  # a trial that ended in the last second runs no longer
        raise Interrupted(f"interrupted; {how_to_go_on(driver.state)}", driver.run.path) from None
    of_the_input = isinstance(error, BadInput) and not driver.trials_begun
    if of_the_input or not isinstance(error, Exception):
        raise error
    message = f"the study stopped: {_reason(error)}; {how_to_go_on(driver.state)}"
    raise AblateError(message) from error


def _status(driver: Driver, ended_by: BaseException | None) -> tuple[str, str]:
    """A run's last status, and why it failed. This is the only place that decides them.

    ended_by: what the stages raised; None where they ended by themselves.
    """
    if ended_by is None:
        return "exhausted" if driver.exhausted else "finished", ""
    if isinstance(ended_by, Exception):
        return "failed", _reason(ended_by)
    return "interrupted", ""  # by Ctrl-C, or by what else ends a process


def _run_stages(driver: Driver, planned: Plan, session: Session) -> None:
    """Measure the layers' latencies, run the trials, and measure the front's latencies."""
    driver.show([])
    with interruptible(driver.stop):
        address = session.resources.address
        check_reachable(planned.dataset.files)
        files = locating.files(driver.study.model) if address else {}  # for nodes without the model's folder
        taught = {name: locating.files(name) for name in planned.teachers if address}
        table = _layer_latencies(driver, planned, session, files)
        driver.trials_begun = True
        _run_trials(driver, planned, session, table, {driver.study.model: files, **taught})
    if driver.stopped:
        raise KeyboardInterrupt
    _measure_front(driver, planned, session, files)


def _layer_latencies(
    driver: Driver, planned: Plan, session: Session, files: dict[str, bytes]
) -> LatencyTable | None:
    """Measure the layers' latencies if the study needs them. A search with a latency bound gets the table."""
    study, table = driver.study, None
    if study.timed:
        classes = planned.dataset.classes
        table = layer_latencies(driver.run, classes, files, session.resources, driver.heartbeat)
    if study.max_latency_ms is not None:
        count = replace(planned.count, table=table)
        driver.search = proposer_of(planned.study, planned.search.groups, driver.records, count)
    return table


def _run_trials(
    driver: Driver,
    planned: Plan,
    session: Session,
    table: LatencyTable | None,
    files: dict[str, dict[str, bytes]],
) -> None:
    early_stopping = driver.study.early_stopping
    rungs = early_stopping.divisors if early_stopping else ()
    distribute(
        driver.ask,
        driver.tell,
        driver.watch,
        stop=lambda: driver.stopped,
        steps=partial(
            worker_steps,
            dataset=planned.dataset,
            table=table,
            files=files,
            rungs=rungs,
            objectives=driver.study.objectives,
        ),
        path=driver.run.path,
        writer=session.writer,
        storage=session.storage,
        should_prune=driver.should_prune if early_stopping else None,
        resources=session.resources,
    )


def _measure_front(driver: Driver, planned: Plan, session: Session, files: dict[str, bytes]) -> None:
    if not (driver.study.timed and driver.front):
        return
    front = pd.DataFrame(driver.front, columns=["trial_id", "latency_ms"])
    classes = planned.dataset.classes
    measure_front(driver.run, front, classes, files, session.resources, driver.heartbeat)


def _end(driver: Driver, status: str, reason: str) -> None:
    """Write the last state, tables and figures. A failure here does not hide an earlier one."""
    path = driver.run.path
    try:
        driver.end(status, reason)
        shutil.rmtree(path / ".tune", ignore_errors=True)
        finish(Run(path))
    except Exception as error:
        if status in ("finished", "exhausted"):
            rule = f"the study is over, but not all tables and figures are: {_reason(error)}"
            raise AblateError(f"{rule}; `ablate figures {shlex.quote(str(path))}` writes them") from error


def _reason(error: Exception) -> str:
    """What went wrong, in a line."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, AblateError) else f"{type(error).__name__}: {text}"


def say_if_slow(study: StudySpec, resources: Resources) -> None:
    """Warn when a study uses bf16 = true and this CPU emulates it, as after a move.

    Args:
        study: The study.
        resources: Where its trials run; on a cluster nothing is said.
    """
    uses_bf16 = study.recipe.bf16 is True or True in values(study.space.recipe.get("bf16", False))
    if uses_bf16 and not resources.address and not native_bf16():
        log.warning(
            "The recipe says bf16 = true, but this CPU has no bfloat16 instructions: a trial will take many "
            "times as long. Continue on a machine that has them, or start anew with bf16 = false."
        )


def finish(run: Run) -> Run:
    """Write what is quickly rebuilt from the ledger: the front and the design, as tables and figures.

    Args:
        run: The run.

    Returns:
        The same run.
    """
    seen = RunResults(run)
    findings = {
        "front": front(seen),
        "confirmed": confirmed(seen),
        "ladder": design_findings.ladder(seen),
        "sensitivity": design_findings.sensitivity(seen),
        "cells": design_findings.cells(seen),
    }
    write_tables(findings, run.path / "tables")
    figures.draw(run, findings)
    return run
