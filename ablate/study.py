"""A study from its question to its front: joins the search, the cluster and the run's folder."""

import itertools
import json
import math
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ablate import cluster, cost, data, latency, layers, ledger, models, packed, trial
from ablate.analysis import pareto
from ablate.cluster import Resources, Running
from ablate.errors import AblateError, BadInput, Interrupted
from ablate.ledger import Record
from ablate.run import RUNS, Run, check_vacant, create_run, load_run, lock, write_study
from ablate.search import Search
from ablate.spec import OBJECTIVES, LayerSpec, StudySpec, TrialSpec, load_study, values
from ablate.train import resolve, train

HERE = Resources()  # a Ray of our own on this machine
View = Callable[[dict[str, Any], list[Record]], None]  # (state, records so far)
PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "safetensors", "thop")


@dataclass(frozen=True)
class Plan:
    """What a study comes to before anything is trained: its search and its dataset, loaded and checked."""

    study: StudySpec
    groups: dict[str, list[str]]
    dataset: data.Dataset
    search: Search

    @property
    def anchors(self) -> list[TrialSpec]:
        """The first point of each kind: a fresh search's first proposals."""
        fresh = Search(self.study, self.search.groups)
        return [spec for _ in range(min(self.study.trials, 4)) if (spec := fresh.ask())]


def plan(study: StudySpec, records: Sequence[Record] = ()) -> Plan:
    """Load what the study names and check that it fits together; its search knows `records`. Raises BadInput."""
    study = study.model_copy(update={"recipe": resolve(study.recipe), "model": models.absolute(study.model)})
    dataset = data.load(study.data)
    model, preprocess = models.load(study.model, dataset.classes), models.preprocess(study.model)
    try:
        cost.count(model, preprocess.size)
    except Exception as error:
        size = "x".join(str(side) for side in preprocess.size)
        raise BadInput(f"model {study.model!r} must take the {size} images that its processor makes, but: {error}") from None
    found = layers.groups(model)
    chosen = dict.fromkeys(name for pattern in study.space.groups for name in layers.match(pattern, found, "layer group"))
    planned = Plan(study, found, dataset, Search(study, [name for name in found if name in chosen], records))
    if not planned.anchors:
        raise BadInput(f"space {study.space.name!r} must have a point, but the values of its axes exclude each other")
    return planned


def estimate(plan: Plan) -> dict[str, Any]:
    """What the study comes to: its layer groups, the cost of its anchors, and how long it takes here.

    The time is that of the anchors' first training steps, measured now on one thread, times all image views; an
    evaluated image counts as a third of a trained one.
    """
    recipe, n = plan.study.recipe, plan.study.trials
    views = n * recipe.epochs * (len(plan.dataset.train) + len(plan.dataset.validation) / 3)
    anchors = [_anchor(plan, spec) for spec in plan.anchors]
    rate = sum(anchor["images_per_second"] for anchor in anchors) / len(anchors)
    groups = [{"layer group": g, "layers": len(names), "searched": g in plan.search.groups} for g, names in plan.groups.items()]
    points = plan.search.size if math.isfinite(plan.search.size) else None
    total = {"points": points, "trials": n, "image_views": round(views), "images_per_second_of_a_cpu": round(rate)}
    return {
        "groups": groups,
        "anchors": anchors,
        **total,
        "cpus": os.cpu_count(),
        "minutes": views / rate / 60 / (os.cpu_count() or 1),
    }


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
            table = _latency_table(run, dataset.classes, resources) if timed else None
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
            _measure_front(run, resources)
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


def _latency_table(run: Run, classes: list[str], resources: Resources) -> latency.LatencyTable:
    """The run's table of layer latencies: measured before its first trial, and kept, so that all sums are of one table."""
    path = run.path / "tables" / "layer_latency.json"
    if path.exists():
        return latency.LatencyTable.restore(json.loads(path.read_text()))
    table: latency.LatencyTable = cluster.alone(resources, _measure_layers, run.study, classes)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table.dump()))
    return table


def _measure_layers(study: StudySpec, classes: list[str]) -> latency.LatencyTable:
    """On a worker: every layer at every precision that the space has, timed by itself."""
    model, size = models.load(study.model, classes), models.preprocess(study.model).size
    axes = {key: values(axis) for key, axis in study.space.layer.items() if not key.startswith("beta")}
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    exist = [point for point in points if point.get("activation_bits") != 1 or point.get("signed", True)]
    return latency.layer_table(model, size, [LayerSpec(**point) for point in exist], trial.device())


def _measure_front(run: Run, resources: Resources) -> None:
    """Write tables/latency.csv: the front's latencies as the search saw them, sums of layers, and measured whole."""
    front = front_table(Run(run.path))
    rows = []
    for name, summed in zip(front["trial_id"], front["latency_ms"], strict=True):
        files = {file.name: file.read_bytes() for file in (run.path / "weights" / name).glob("*")}
        whole = asdict(cluster.alone(resources, _measure_packed, files)) if files else {"median_ms": None}
        rows.append({"trial_id": name, "latency_ms_summed": summed, "latency_ms_measured": whole.pop("median_ms"), **whole})
    pd.DataFrame(rows).to_csv(run.path / "tables" / "latency.csv", index=False)


def _measure_packed(files: dict[str, bytes]) -> latency.Timing:
    """On a worker: a packed model, loaded and timed whole."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        model = packed.load_packed(folder).to(trial.device())
        return latency.measure(model, packed.load_preprocess(folder).size)


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
        title = f"{Path(run.study.model).name} on {run.study.data}, {len(trials)} trials, seed {run.study.seed}"
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


def _anchor(plan: Plan, spec: TrialSpec, seconds: float = 2.0) -> dict[str, Any]:
    """Counted cost of an anchor, and its training rate over a few seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, preprocess = trial.build(spec, plan.dataset.classes), models.preprocess(spec.model)
    counted = cost.count(model, preprocess.size)
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = packed.pack(model, folder, preprocess=preprocess)
    train_split, one = (
        data.Split(plan.dataset.train.images[:k], plan.dataset.train.labels[:k]) for k in (spec.recipe.batch_size, 1)
    )
    steps = train(model, train_split, one, spec.recipe.model_copy(update={"epochs": 10**6}), preprocess, 0)
    next(steps)  # warm-up
    started, n = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        next(steps)
        n += len(train_split)
    torch.set_num_threads(threads)
    kept = [group for group in plan.search.groups if group not in spec.layers]
    name = f"{trial.arm(spec)}, but {kept[0]} ... {kept[-1]}" if spec.layers and kept else trial.arm(spec)
    row = {"anchor": name, "size_bytes": size_bytes, "bitops": counted.bitops, "macs": counted.macs}
    return row | {"images_per_second": round(n / spent)}


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
