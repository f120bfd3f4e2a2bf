"""The study's side of the distribution: what to run next, what was learned, and what the others may see of it."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pandas as pd

from ablate.analysis import pareto
from ablate.analysis.bounds import best_by_size
from ablate.analysis.hypervolume import hypervolume
from ablate.config.trial_spec import TrialSpec, checked
from ablate.engine.plan import Plan
from ablate.errors import BadInput
from ablate.execution.monitoring import METRICS
from ablate.execution.ray_cluster import Metrics, Readings, Resources
from ablate.execution.tune_runner import Asked, Running
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.runs.run import Run
from ablate.runs.state import seconds_left
from ablate.search.confirmation import confirmations, is_searched
from ablate.search.searcher import Search
from ablate.search.successive_halving import Rungs
from ablate.training.trial import trial_id

View = Callable[[dict[str, Any], list[Record]], None]  # (state, records so far)


class Driver:
    """Proposes, learns, keeps the state file fresh, and feeds the view and the metrics. Ray must be connected."""

    def __init__(
        self,
        run: Run,
        planned: Plan,
        records: list[Record],
        resources: Resources,
        dashboard: str,
        view: View | None,
    ) -> None:
        self.run, self.study, self.records, self.view = run, run.study, list(records), view
        self.search, self.dataset = planned.search, planned.dataset
        self.asked, self.exhausted, self.stopped = sum(map(self.is_searched, records)), False, False
        self.confirming: dict[str, TrialSpec] = {}  # by trial id, those under way
        self.front: list[Record] = []  # never more than this is needed to tell whether a new record is on it
        self.best: dict[str, Record] = {}  # by size class
        self.rungs = Rungs(self.study)
        self.metrics = Metrics(METRICS, run.path.name)
        self.unfinished: list[TrialSpec] = []  # of a driver before, if this version knows them
        with suppress(BadInput):
            unfinished = [checked(TrialSpec, spec, "state.json") for spec in run.state.get("unfinished", [])]
            self.unfinished = [spec for spec in unfinished if not spec.test]  # the others come by themselves
        self.state: dict[str, Any] = {
            "status": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "run": str(run.path),
        }
        self.state |= {"started": time.time(), "before": len(records)}
        self.state |= {"trials": self.study.trials + len(records) - self.asked}
        self.state |= {"concurrency": resources.concurrency, "dashboard": dashboard}
        self.state |= {"address": resources.address, "storage": resources.storage}
        self.state |= {"within": self.study.within, "out_of_bounds": 0}
        self.state |= {
            "counts": dict.fromkeys(("complete", "failed", "pruned"), 0),
            "waiting": 0,
            "deaths": 0,
        }
        self.spent = run.state.get("spent", 0.0)  # seconds, by the drivers before
        self._learn(records)

    def ask(self) -> Asked | None:
        """The next trial; first those that the driver before this one had under way."""
        late = self.study.hours is not None and self.state["spent"] > self.study.hours * 3600
        if late:
            return None
        if self.exhausted or self.asked >= self.study.trials:
            return self._confirm()
        while self.unfinished:
            if self.search.again(spec := self.unfinished.pop(0)):
                self.asked += 1
                return self._named(spec)
        if (next_spec := self.search.ask()) is None:
            self.exhausted = not self.search.waits
            return self._confirm()
        self.asked += 1
        return self._named(next_spec)

    def _named(self, spec: TrialSpec) -> Asked:
        return trial_id(spec, self.dataset), spec

    def _confirm(self) -> Asked | None:
        """The next trial that confirms the front, once the search's last trial has ended."""
        if not self.study.confirm or self.search.under_way:
            return None
        left = dict(map(self._named, confirmations(self.study, self.front)))
        done = {record["trial_id"] for record in self.records}
        left = {name: spec for name, spec in left.items() if name not in done}
        self.state["trials"] = len(self.records) + len(left)
        for name, spec in left.items():
            if name not in self.confirming:
                self.confirming[name] = spec
                return name, spec
        return None

    def is_searched(self, record: Record) -> bool:
        """Whether the search is to learn from a record, and not one that confirms its front."""
        return bool(self.study.design) or is_searched(record)

    def tell(self, record: Record) -> list[str]:
        """The trials on the front, after this one."""
        if self.is_searched(record):
            self.search.tell(record)
        self.confirming.pop(record["trial_id"], None)
        self.records.append(record)
        self._learn([record])
        if record["train_seconds"] is not None:
            self.metrics.observe(record["train_seconds"])
        return [row["trial_id"] for row in self.front]

    def judge(self, name: str, spec: TrialSpec, so_far: Record) -> str:
        """Why a trial ends after the epoch that it reports, "" where it goes on."""
        return self.rungs.judge(name, so_far) if self.races(spec) else ""

    def races(self, spec: TrialSpec) -> bool:
        """Whether a trial is compared with others on its way: not what confirms, nor an anchor, the others' reference."""
        return not (spec.test or (isinstance(self.search, Search) and self.search.is_anchor(spec)))

    def _learn(self, records: list[Record]) -> None:
        for record in records:
            self.state["counts"][record["status"]] += 1
            if self.study.early_stopping and self.races(trial_of(record)):
                self.rungs.tell(record)
        searched = [record for record in records if self.is_searched(record)]
        candidates = [*self.front, *searched]
        columns = ["status", *dict.fromkeys([*self.study.objectives, *self.study.within])]
        table = pd.DataFrame(
            [[record[column] for column in columns] for record in candidates], columns=columns
        )
        self.front = [
            candidates[i] for i in pareto.front_of(table, self.study.directions, self.study.within).index
        ]
        self.best = best_by_size([*self.best.values(), *searched], self.study.within)

    def watch(self, running: Running, waiting: int, deaths: int) -> None:
        """Called again and again with what is running: shown once a second."""
        self.state |= {"waiting": waiting, "deaths": deaths}
        if time.time() - self.state["heartbeat"] >= 1:
            self.show(running)

    def show(self, running: Running) -> None:
        self.state["spent"] = self.spent + time.time() - self.state["started"]
        self.state |= {"heartbeat": time.time(), "done": len(self.records), "running": running}
        self.state["out_of_bounds"] = self.search.out_of_bounds
        unfinished = [*self.unfinished, *self.confirming.values()]
        self.state["unfinished"] = [spec.model_dump() for spec in unfinished] + self.search.under_way
        self.run.write_state(self.state)
        self.metrics.show(self._readings())
        if self.view:
            self.view(self.state, self.records)

    def end(self, status: str, reason: str) -> None:
        """The last words. reason: why it failed, "" where it did not."""
        self.state |= {"status": status, "reason": reason}
        self.show([])

    def _readings(self) -> Readings:
        state = self.state
        over = (self.exhausted and not self.study.confirm) or self.stopped or state["status"] != "running"
        counts = state["counts"] | {"running": len(state["running"]), "waiting": state["waiting"]}
        counts["left"] = 0 if over else max(0, state["trials"] - len(self.records))
        left = seconds_left(state)
        readings: Readings = {
            "ablate_trials": [({"state": name}, n) for name, n in counts.items()],
            "ablate_front_size": [({}, len(self.front))],
            "ablate_hypervolume": [({}, self._hypervolume())],
            "ablate_best_accuracy": [
                ({"size_class": name}, best["accuracy"]) for name, best in self.best.items()
            ],
            "ablate_worker_deaths": [({}, state["deaths"])],
            "ablate_duplicates_avoided": [({}, self.search.duplicates)],
            "ablate_end_time_seconds": [] if left is None else [({}, time.time() + left)],
        }
        for name in ("epoch", "accuracy"):
            readings[f"ablate_slot_{name}"] = [
                ({"slot": str(row["slot"]), "trial": row["trial_id"], "layers": row["layers"]}, row[name])
                for row in state["running"]
                if row[name] is not None
            ]
        return readings

    def _hypervolume(self) -> float:
        """Of the box from the first trial's costs to none, and from accuracy 0 to 1, the share that the front dominates."""
        if not self.front:
            return 0.0
        first = next(record for record in self.records if record["status"] == "complete")
        scale = {name: first[name] if best == "min" else 1.0 for name, best in self.study.directions.items()}
        points = [[record[name] / (scale[name] or 1.0) for name in scale] for record in self.front]
        reference = [1.0 if best == "min" else 0.0 for best in self.study.directions.values()]
        return hypervolume(points, reference, list(self.study.directions.values()))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within: the first SIGINT or SIGTERM asks the running trials to end with their epoch, the second raises."""

        def handle(number: int, frame: object) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self.state["status"] = "ending after the current epochs; once more ends at once"
            if sys.__stderr__:  # else 2 may be any file
                with suppress(
                    OSError
                ):  # at once, whatever waits for the epoch; `print` must not be entered twice
                    os.write(2, b"ablate: ending after the current epochs; Ctrl-C again ends at once\n")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
