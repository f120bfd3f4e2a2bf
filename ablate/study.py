"""A study from its question to its front: joins the search, the cluster and the run's folder."""

import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ablate import cluster, data, ledger, trial
from ablate.analysis import pareto
from ablate.cluster import Resources, Running
from ablate.errors import AblateError, BadInput, Interrupted
from ablate.ledger import Record
from ablate.plan import plan
from ablate.run import RUNS, Run, check_vacant, create_run, load_run, lock, write_study
from ablate.search import Search
from ablate.spec import OBJECTIVES, StudySpec, TrialSpec, load_study
from ablate.timing import layer_latencies, measure_front

HERE = Resources()  # a Ray of our own on this machine
View = Callable[[dict[str, Any], list[Record]], None]  # (state, records so far)
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
    planned = plan(study)
    with cluster.connected(resources) as (dashboard, resources):
        run = create_run(path, planned.study, _provenance(planned.dataset))
        writer = cluster.writer_of(path)
        return _drive(_Driver(run, planned.search, [], resources, dashboard, view), planned.dataset, writer)


def resume_study(
    path: str | Path, *, trials: int | None = None, resources: Resources = HERE, view: View | None = None
) -> tuple[Run, int]:
    """Go on with a run after any end, up to `trials` in all; the run, and the bytes of a torn last line that were cut off.

    Raises BadInput when the path holds no run, when its driver is alive, and when `trials` is below what is recorded.
    """
    run = load_run(path)
    lock(run.path).close()
    torn = ledger.recover(run.path / "ledger.jsonl")
    records = ledger.read(run.path / "ledger.jsonl")
    study = run.study.model_copy(update={"trials": run.study.trials if trials is None else trials})
    if study.trials < len(records):
        raise BadInput(f"--trials must be at least the {len(records)} trials that are recorded, but got {trials}")
    cluster.check_address(resources.address)
    planned = plan(study, records)
    with cluster.connected(resources) as (dashboard, resources):
        writer = cluster.writer_of(run.path)
        write_study(run.path, planned.study)
        driver = _Driver(Run(run.path), planned.search, records, resources, dashboard, view)
        return _drive(driver, planned.dataset, writer), torn


def _drive(driver: "_Driver", dataset: data.Dataset, writer: Any) -> Run:
    """Distribute the trials that are left. The first Ctrl-C ends after the running epochs, the second at once."""
    run, resources, status, timed = driver.run, driver.resources, "interrupted", "latency_ms" in driver.run.study.objectives
    go_on = f"what is recorded is kept; go on with `ablate resume {shlex.quote(str(run.path))}`"
    try:
        with driver.interruptible():
            table = layer_latencies(run, dataset.classes, resources) if timed else None
            cluster.distribute(
                driver.ask,
                driver.tell,
                driver.watch,
                stop=lambda: driver.stopped,
                dataset=dataset,
                table=table,
                path=run.path,
                writer=writer,
                resources=resources,
            )
        if driver.stopped:
            raise KeyboardInterrupt
        if timed:
            measure_front(run, front_table(Run(run.path)), resources)
        status = "exhausted" if driver.exhausted else "finished"
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {go_on}", run.path) from None
    except AblateError:
        raise
    except Exception as error:
        status = "failed"
        raise AblateError(f"the study stopped: {type(error).__name__}: {error}; {go_on}") from error
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
    front = front_table(run)
    front = front.assign(**{column: front[column].map(json.dumps) for column in ("spec", "curve")})
    front.to_csv(run.path / "tables" / "front.csv", index=False)
    trials = run.records[run.records["status"] == "complete"]
    if len(trials):
        on = {
            key: pareto.front_of(trials, directions(names)).index
            for key, names in (("front", objectives), ("stairs", objectives[:2]))
        }
        trials = trials.assign(**{key: trials.index.isin(rows) for key, rows in on.items()}, label=_labels(trials))
        title = f"{Path(run.study.model).name} on {Path(run.study.data).name}, {len(trials)} trials, seed {run.study.seed}"
        fig_pareto.draw(trials, objectives, title, run.path / "figures" / "pareto")
    return run


def front_table(run: Run) -> pd.DataFrame:
    """The front of a run: a row a trial, the best in the first objective last."""
    return pareto.front_of(run.records, directions(run.study.objectives))


def directions(objectives: Sequence[str]) -> dict[str, pareto.Direction]:
    return {name: OBJECTIVES[name] for name in objectives}


def _labels(trials: pd.DataFrame) -> list[str]:
    """Names for the anchors: the first trials in which all layer groups that were ever quantized are of one kind."""
    groups = {group for spec in trials["spec"] for group in spec["layers"]}
    uniform = trials["spec"].map(lambda spec: not spec["layers"] or set(spec["layers"]) == groups)
    uniform &= ~trials["arm"].str.contains("+", regex=False)
    first = uniform & ~trials[uniform].duplicated("arm").reindex(trials.index, fill_value=False)
    return [f"all {arm}" if anchor else "" for arm, anchor in zip(trials["arm"], first, strict=True)]


class _Driver:
    """The study's side of the distribution: proposes, learns, keeps the state file fresh, and feeds the view."""

    def __init__(
        self, run: Run, search: Search, records: list[Record], resources: Resources, dashboard: str, view: View | None
    ) -> None:
        self.run, self.search, self.records, self.resources, self.view = run, search, list(records), resources, view
        self.asked = len(records)
        self.exhausted = self.stopped = False
        self.state: dict[str, Any] = {"status": "running", "host": socket.gethostname(), "pid": os.getpid()}
        self.state |= {"started": time.time(), "before": len(records), "trials": run.study.trials}
        self.state |= {"concurrency": resources.concurrency, "dashboard": dashboard}
        self.watch([])

    def ask(self) -> TrialSpec | None:
        study = self.run.study
        late = study.hours is not None and time.time() - self.state["started"] > study.hours * 3600
        if self.exhausted or late or self.asked == study.trials:
            return None
        self.asked += 1
        spec = self.search.ask()
        self.exhausted = spec is None
        return spec

    def tell(self, record: Record) -> list[str]:
        """The trials on the front, after this one."""
        self.search.tell(record)
        self.records.append(record)
        return list(pareto.front_of(pd.DataFrame(self.records), directions(self.run.study.objectives))["trial_id"])

    def watch(self, running: Running) -> None:
        now = time.time()
        if now - self.state.get("heartbeat", 0) < 1 and len(self.records) == self.state["done"]:
            return
        self.show(running)

    def show(self, running: Running) -> None:
        self.state |= {"heartbeat": time.time(), "done": len(self.records), "running": running}
        self.run.write_state(self.state)
        if self.view:
            self.view(self.state, self.records)

    def end(self, status: str) -> None:
        self.state["status"] = status
        self.show([])

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within: the first SIGINT or SIGTERM asks the running trials to end with their epoch, the second raises."""

        def handle(number: int, frame: object) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self.state["status"] = "ending after the current epochs; once more ends at once"

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
