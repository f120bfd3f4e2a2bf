"""Distributes trials with Ray Tune: the only module that imports ray."""

import faulthandler
import logging
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger is the record
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the live view is ours
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees none

import ray
import torch
from pydantic import Field
from ray import tune
from ray.tune.search import Searcher

from ablate.data import Dataset
from ablate.errors import BadInput
from ablate.latency import LatencyTable
from ablate.ledger import Record
from ablate.run import Writer, lock
from ablate.spec import Spec, TrialSpec
from ablate.train import Epoch
from ablate.trial import Outcome, arm, blank_record, trial_steps
from ablate.trial import trial_id as trial_id_of

Running = list[dict[str, Any]]  # per running trial: trial_id, arm, epoch, epochs, accuracy
RETRIES = 2  # of a trial whose worker or node died


class Resources(Spec):
    """What a study may use. `concurrency` None: as many trials at once as fit."""

    address: str | None = None
    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0)] | None = None  # None: one where the cluster has any
    concurrency: Annotated[int, Field(ge=1)] | None = None
    minutes_per_trial: float = Field(120.0, gt=0)  # then the trial counts as hung and is ended


@contextmanager
def connected(resources: Resources) -> Iterator[tuple[str, Resources]]:
    """Within: Ray, started here or joined at the address; (dashboard's URL or "", the resources without any None).

    Raises BadInput when no Ray answers, and when no trial fits.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is in the ledger
    try:
        context = ray.init(
            address=resources.address or "local",
            include_dashboard=None if resources.address else True,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BadInput(f"--address must be that of a Ray cluster of this version, but {resources.address!r}: {error}") from None
    try:
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield url, _resolved(resources)
    finally:
        ray.shutdown()


def _resolved(resources: Resources) -> Resources:
    """The resources with what was left open decided by what the cluster has."""
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0), have.get("GPU", 0)
    each = resources.gpus_per_trial if resources.gpus_per_trial is not None else float(gpus >= 1)
    fit = int(min(cpus // resources.cpus_per_trial, gpus / each if each else cpus))
    if fit < 1:
        asked = f"--cpus-per-trial {resources.cpus_per_trial} --gpus-per-trial {each:g}"
        raise BadInput(f"a trial must fit the cluster, but {asked} exceeds its {cpus:g} CPUs and {gpus:g} GPUs")
    at_once = min(fit, resources.concurrency or fit)
    return resources.model_copy(update={"gpus_per_trial": each, "concurrency": at_once})


def check_address(address: str | None) -> None:
    """Raises BadInput within seconds for an address where no Ray answers; Ray itself would wait for minutes."""
    if address is None:
        return
    if "://" in address:
        job = "ray job submit --address http://HEAD:8265 -- ablate study ..."
        raise BadInput(f"--address must be HOST:PORT of a Ray cluster, but got {address!r}; for a remote driver run `{job}`")
    health = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            health += ["--address", address]
        subprocess.run(health, timeout=15, check=True, capture_output=True)
    except (OSError, ValueError, OverflowError, subprocess.SubprocessError) as error:
        reason = "no Ray answers there" if isinstance(error, subprocess.SubprocessError) else str(error)
        raise BadInput(f"--address must be HOST:PORT of a Ray cluster, but {address!r}: {reason}; try `ray status`") from None


def writer_of(path: Path) -> Any:
    """The actor that alone writes a run's folder, on this node; it holds the run's lock until Ray is left.

    Raises BadInput when another driver holds it.
    """
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    writer = ray.remote(Writer).options(num_cpus=0, scheduling_strategy=here).remote(path)
    try:
        ray.get(writer.has.remote(""))
    except ray.exceptions.RayActorError:
        lock(path).close()  # raises, and names the owner
        raise
    return writer


def distribute(
    ask: Callable[[], TrialSpec | None],
    tell: Callable[[Record], list[str]],
    watch: Callable[[Running], None],
    *,
    stop: Callable[[], bool],
    dataset: Dataset,
    table: LatencyTable | None,
    path: Path,
    writer: Any,
    resources: Resources,
) -> None:
    """Run trials until `ask` has none left or `stop` says so; Ray must be connected.

    Every record is written before it is told; `tell` returns the trials whose weights are kept. `watch` is called
    again and again with what is running. After `stop`, running trials end with their current epoch, unrecorded.
    """
    proposer = _Proposer(ask, tell, stop, writer, resources.minutes_per_trial)
    limits = {"threads": resources.cpus_per_trial, "minutes": resources.minutes_per_trial}
    trainable = tune.with_parameters(_Worker, dataset=dataset, table=table, writer=writer, **limits)
    needs = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=proposer,
            num_samples=-1,  # the proposer ends it
            max_concurrent_trials=resources.concurrency,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(path / ".tune"),
            verbose=0,
            stop=_Stopper(stop),
            callbacks=[_Watcher(proposer, watch)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def alone(resources: Resources, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a worker with a trial's resources, while no trial runs."""

    def call() -> Any:
        torch.set_num_threads(resources.cpus_per_trial)
        return function(*arguments)

    return ray.get(ray.remote(call).options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial).remote())


class _Worker(tune.Trainable):
    """One actor, many trials: a step is an epoch, and the last step hands the outcome to the writer."""

    def setup(self, config: dict[str, Any], dataset: Dataset, table: Any, writer: Any, threads: int, minutes: float) -> None:
        torch.set_num_threads(threads)
        self.dataset, self.table, self.writer, self.minutes = dataset, table, writer, minutes
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        faulthandler.dump_traceback_later(60 * self.minutes, exit=True)  # ends a hung trial from inside
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        spec = TrialSpec.model_validate(new_config["spec"])
        self.epochs: Generator[Epoch, None, Outcome] = trial_steps(spec, new_config["trial_id"], self.dataset, self.table)
        return True

    def step(self) -> dict[str, Any]:
        try:
            epoch = next(self.epochs)
            return {"epoch": epoch.epoch, "accuracy": epoch.accuracy}
        except StopIteration as end:
            outcome: Outcome = end.value
            faulthandler.cancel_dump_traceback_later()
            ray.get(self.writer.write.remote(outcome.record, outcome.predictions, outcome.weights))
            return {"done": True, "recorded": True}


class _Unsaved:
    """Tune pickles its parts to restore an experiment from them; these stay empty: a run goes on from its ledger."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


@dataclass
class _Running:
    """A trial under way, as the driver knows it."""

    spec: TrialSpec
    trial_id: str
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    accuracy: float | None = None


class _Proposer(_Unsaved, Searcher):
    """ask() and tell() in the shape that Ray Tune asks for; runs a trial again when its worker or node died."""

    def __init__(
        self,
        ask: Callable[[], TrialSpec | None],
        tell: Callable[[Record], list[str]],
        stop: Callable[[], bool],
        writer: Any,
        minutes: float,
    ) -> None:
        super().__init__()
        self.ask, self.tell, self.stop, self.writer, self.minutes = ask, tell, stop, writer, minutes
        self.running: dict[str, _Running] = {}  # by Tune's id
        self.again: list[TrialSpec] = []
        self.deaths: Counter[str] = Counter()  # by trial id

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial; FINISHED when none is left; None while one of those running may still have to run again."""
        spec = None if self.stop() else self.again.pop() if self.again else self.ask()
        if spec is None:
            return None if self.running else Searcher.FINISHED
        self.running[trial_id] = trial = _Running(spec, trial_id_of(spec))
        return {"spec": spec.model_dump(), "trial_id": trial.trial_id}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result:
            trial = self.running[trial_id]
            trial.epoch, trial.accuracy = result["epoch"], result["accuracy"]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial that ended by itself is told; one that was stopped leaves no record and runs again on resume."""
        if not error:
            trial = self.running.pop(trial_id)
            if result and result.get("recorded"):
                self.close(trial.trial_id)

    def failed(self, trial_id: str, error: Exception | None) -> None:
        """A trial's worker raised, hung or died. Only a death is worth another try."""
        trial = self.running.pop(trial_id)
        name, limit = trial.trial_id, 60 * self.minutes
        if ray.get(self.writer.has.remote(name)):  # it died after its record was written
            return self.close(name)
        if time.monotonic() - trial.started > limit:
            reason = f"the trial took more than {self.minutes:g} minutes and was ended"
        elif isinstance(error, ray.exceptions.RayTaskError):
            reason = f"{type(error.cause).__name__}: {error.cause}"
        else:
            self.deaths[name] += 1
            if self.deaths[name] <= RETRIES:
                return self.again.append(trial.spec)
            reason = f"its worker died {self.deaths[name]} times: {error}"
        record = blank_record(trial.spec, name) | {"error": " ".join(reason.split())}
        ray.get(self.writer.write.remote(record, {}, {}))
        self.close(name)

    def close(self, name: str) -> None:
        """Tell a written record, and drop the weights that are no longer on the front."""
        ray.get(self.writer.keep.remote(self.tell(ray.get(self.writer.take.remote(name)))))


class _Stopper(_Unsaved, tune.Stopper):
    """Ends each running trial with its current epoch once `stop` says so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop()

    def stop_all(self) -> bool:
        return False  # the proposer ends the experiment


class _Watcher(_Unsaved, tune.Callback):
    def __init__(self, proposer: _Proposer, watch: Callable[[Running], None]) -> None:
        self.proposer, self.watch = proposer, watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        running = self.proposer.running.values()
        seen = [{"trial_id": t.trial_id, "arm": arm(t.spec), "epoch": t.epoch, "accuracy": t.accuracy} for t in running]
        self.watch([row | {"epochs": t.spec.recipe.epochs} for row, t in zip(seen, running, strict=True)])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.proposer.running[trial.trial_id].started = time.monotonic()  # it may have waited for its resources

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.proposer.failed(trial.trial_id, trial.get_pickled_error())
