"""The study's side of the distribution: what runs next, what was learned, and what others see of it."""

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pandas as pd

from ablate.analysis import pareto
from ablate.analysis.bounds import best_by_size
from ablate.config.trial_spec import TrialSpec, checked
from ablate.engine.interruption import GRACE_SECONDS
from ablate.engine.plan import Plan
from ablate.engine.run_metrics import hypervolume_share, readings
from ablate.errors import BadInput
from ablate.execution.ask_tell_searcher import Proposal
from ablate.execution.metrics import Metrics
from ablate.execution.monitoring import METRICS
from ablate.execution.ray_cluster import Resources
from ablate.execution.running_trial import RunningRows
from ablate.runs import openings
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record, is_candidate, value_of
from ablate.runs.run import Run
from ablate.runs.state import State, progress_now, progress_of
from ablate.search.confirmation import confirmations, is_searched
from ablate.search.experiment_design import Design
from ablate.search.searcher import Search
from ablate.search.successive_halving import Rungs
from ablate.training.trial import trial_id

log = logging.getLogger(__name__)
View = Callable[[State, list[Record]], None]  # (state, records so far)


class Driver:
    """Proposes trials, learns from their records, and updates the state file, the view and the metrics.

    Ray must be connected.

    Args:
        run: The run.
        planned: The study's plan, whose search knows `records`.
        records: The run's records so far.
        resources: What the study may use.
        dashboard: URL of Ray's dashboard, or "".
        view: Is called once a second with the state and the records.
    """

    def __init__(
        self,
        run: Run,
        planned: Plan,
        records: list[Record],
        resources: Resources,
        dashboard: str,
        view: View | None,
    ) -> None:
        self.run, self.study, self.records = run, run.study, list(records)
        self.shows: list[Callable[[], None]] = [self._show_metrics]
        if view:
            self.shows.append(lambda: view(self.state, self.records))
        self.search, self.dataset, self.asked = planned.search, planned.dataset, planned.study
        self.n_proposed = sum(map(self.is_searched, records))
        self.exhausted, self.stopped, self.trials_begun = False, False, False
        self.confirming: dict[str, TrialSpec] = {}  # by trial id, those that run
        self.front: list[Record] = []  # enough to decide whether a new record joins it
        self.best: dict[str, Record] = {}  # by size class
        self.rungs = Rungs(self.study)
        self.metrics = Metrics(METRICS, run.path.name)
        self.unfinished = _unfinished(run)
        self.spent = run.state.get("spent", 0.0)  # seconds, by the run's earlier drivers
        self.began = self.shown = time.monotonic()
        self.state: State = {
            "status": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "run": str(run.path),
            "started": time.time(),
            "before": len(records),
            "trials": self.study.trials + len(records) - self.n_proposed,
            "may_grow": False,
            "concurrency": resources.concurrency,
            "dashboard": dashboard,
            "address": resources.address,
            "storage": resources.storage,
            "within": self.study.within,
            "out_of_bounds": 0,
            "counts": dict.fromkeys(("complete", "failed", "pruned"), 0),
            "waiting": 0,
            "deaths": 0,
        }
        self._count_trials()
        self._learn(records)

    def ask(self) -> Proposal | None:
        """The next trial. Those that the run's earlier driver left unfinished come first."""
        if self.study.hours is not None and self.state["spent"] > self.study.hours * 3600:
            return None
        over = self.exhausted or self.n_proposed >= self.study.trials
        if over and not self.study.design:  # a design may have grown, and ends by itself
            return self._confirm()
        while self.unfinished:
            if self.search.requeue(spec := self.unfinished.pop(0)):
                self.n_proposed += 1
                return self._named(spec)
        if (next_spec := self.search.ask()) is None:
            self.exhausted = not (self.search.waits or self.study.design)
            return self._confirm()
        self.n_proposed += 1
        return self._named(next_spec)

    def _named(self, spec: TrialSpec) -> Proposal:
        return trial_id(spec, self.dataset), spec

    def _confirm(self) -> Proposal | None:
        """The next trial that confirms the front, once the search's last trial has ended."""
        if not self.study.confirm or self.search.pending:
            return None
        done = {record["trial_id"] for record in self.records}
        proposals = map(self._named, confirmations(self.study, self.front))
        left = {name: spec for name, spec in proposals if name not in done}
        self.state["trials"] = len(self.records) + len(left)
        for name, spec in left.items():
            if name not in self.confirming:
                self.confirming[name] = spec
                return name, spec
        return None

    def is_searched(self, record: Record) -> bool:
        """Whether the search learns from a record: not from one that confirms its front."""
        return bool(self.study.design) or is_searched(record)

    def tell(self, record: Record) -> list[str]:
        """Take in a record.

        Args:
            record: A trial's record, which is in the ledger.

        Returns:
            The ids of the trials that are on the front now.
        """
        if self.is_searched(record):
            self.search.tell(record)
            self._count_trials()
        self.confirming.pop(record["trial_id"], None)
        self.records.append(record)
        self._learn([record])
        if record["spec"]["test"] == "B" and record["test_accuracy"] is not None:
            openings.add(self.asked, self.dataset, self.run.path)
        if record["train_seconds"] is not None:
            self.metrics.observe(record["train_seconds"])
        return [row["trial_id"] for row in self.front]

    def _count_trials(self) -> None:
        """A design grows where a grid is extended, and shrinks where cells choose the same."""
        if isinstance(self.search, Design):
            self.state |= {"trials": self.search.size, "may_grow": self.search.may_grow}

    def should_prune(self, name: str, spec: TrialSpec, so_far: Record) -> str:
        """Decide whether a trial ends after the epoch that it reports.

        Args:
            name: The trial's id.
            spec: The trial.
            so_far: Its record up to this epoch.

        Returns:
            Why it is pruned; "" where it goes on.
        """
        return self.rungs.should_prune(name, so_far) if self.races(spec) else ""

    def races(self, spec: TrialSpec) -> bool:
        """Whether a trial is compared at rungs. Anchors, and trials that confirm the front, always go on."""
        return not (spec.test or (isinstance(self.search, Search) and self.search.is_anchor(spec)))

    def _learn(self, records: list[Record]) -> None:
        """Update the counts, the rungs, the front and the best trials."""
        for record in records:
            self.state["counts"][record["status"]] += 1
            if self.study.early_stopping and self.races(trial_of(record)):
                self.rungs.tell(record)
        new = [record for record in records if is_candidate(record["spec"], self.study)]
        candidates = [*self.front, *new]
        columns = ["status", *dict.fromkeys([*self.study.objectives, *self.study.within])]
        rows = [[value_of(record, column) for column in columns] for record in candidates]
        table = pd.DataFrame(rows, columns=columns)
        front = pareto.front_of(table, self.study.directions, self.study.within)
        self.front = [candidates[i] for i in front.index]
        self.best = best_by_size([*self.best.values(), *new], self.study.within)

    def watch(self, running: RunningRows, waiting: int, deaths: int) -> None:
        """Show how the study goes, once a second at most.

        Args:
            running: The running trials.
            waiting: How many trials wait for their resources.
            deaths: How many workers have died.
        """
        self.state |= {"waiting": waiting, "deaths": deaths}
        if time.monotonic() - self.shown >= 1:
            self.show(running)

    def heartbeat(self) -> None:
        """Show other hosts that this driver is alive, while no trial runs."""
        self.watch([], 0, 0)

    def show(self, running: RunningRows) -> None:
        """Write the state file, and hand the state to the metrics and the view.

        Metrics, or a view, that fail are dropped, and the study goes on.
        """
        self.shown = time.monotonic()
        elapsed = self.shown - self.began
        unfinished = [*self.unfinished, *self.confirming.values()]
        self.state |= {
            "elapsed": elapsed,
            "spent": self.spent + elapsed,
            "heartbeat": time.time(),
            "done": len(self.records),
            "running": running,
            "out_of_bounds": self.search.out_of_bounds,
            "unfinished": [spec.model_dump() for spec in unfinished] + self.search.pending,
        }
        self.run.write_state(self.state)
        for show in list(self.shows):
            try:
                show()
            except (Exception, SystemExit) as error:  # SystemExit: from Rich, on a broken pipe
                what = "The metrics" if show == self._show_metrics else "The view"
                log.warning("%s failed and will not be updated: %s: %s", what, type(error).__name__, error)
                self.shows.remove(show)

    def _show_metrics(self) -> None:
        state = self.state
        nothing_left = self.exhausted and not self.study.confirm
        over = nothing_left or self.stopped or state["status"] != "running"
        own = self.study.own_objectives  # of unknown range
        directions = {name: best for name, best in self.study.directions.items() if name not in own}
        values = readings(
            state,
            trials_left=0 if over else max(0, state["trials"] - len(self.records)),
            front_size=len(self.front),
            hypervolume=hypervolume_share(self.front, self.records, directions),
            best=self.best,
            duplicates=self.search.duplicates,
        )
        self.metrics.show(values)

    def stop(self) -> str:
        """Ask the running trials to end with their current epoch.

        Returns:
            What is waited for, and where the trials will go on.
        """
        self.stopped = True
        waits, at_once = f"waiting at most {GRACE_SECONDS:.0f} s", "Ctrl-C again ends at once"
        self.state["status"] = f"{waits} for the current epochs; {at_once}"
        if not (running := self.state.get("running")):
            return f"{waits}, no trial is running; {at_once}"
        trials = ", ".join(
            f"{trial['trial_id']} ({progress_now(trial) or progress_of(trial)})" for trial in running
        )
        start = "its last validated epoch" if self.state["storage"] else "the start, as there is no --storage"
        return f"{waits} for the current epochs of {trials}; each will go on from {start}; {at_once}"

    def end(self, status: str, reason: str = "") -> None:
        """Write the state for the last time.

        Args:
            status: How the run has ended.
            reason: Why it failed; "" where it did not.
        """
        self.state |= {"status": status, "reason": reason}
        self.show([])


def _unfinished(run: Run) -> list[TrialSpec]:
    """The trials that the run's earlier driver left unfinished, where this version can read them."""
    with suppress(BadInput):
        specs = [checked(TrialSpec, spec, "state.json") for spec in run.state.get("unfinished", [])]
        return [spec for spec in specs if not spec.test]  # those that confirm the front are proposed anew
    return []
