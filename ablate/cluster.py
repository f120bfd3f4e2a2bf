"""Distributes trials with Ray Tune: the only module that imports ray."""

import logging
import os
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger is the record
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the live view is ours
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default, chosen now: no warning

import ray
import torch
from pydantic import Field
from ray import tune
from ray.tune.search import Searcher

from ablate.data import Dataset
from ablate.errors import BadInput
from ablate.ledger import Record
from ablate.run import Writer
from ablate.spec import Spec, TrialSpec
from ablate.train import Epoch
from ablate.trial import Outcome, blank_record, trial_steps
from ablate.trial import trial_id as trial_id_of

Running = list[dict[str, Any]]  # per running trial: trial_id, arm, epoch, accuracy


class Resources(Spec):
    """What a study may use. `concurrency` None: as many trials at once as fit."""

    address: str | None = None
    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: float = Field(0.0, ge=0)
    concurrency: Annotated[int, Field(ge=1)] | None = None


def connect(resources: Resources) -> tuple[str, int]:
    """Start Ray here, or join the cluster at the address; (dashboard's URL or "", trials at once).

    Raises BadInput when no Ray answers, and when no trial fits.
    """
    check_address(resources.address)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is in the ledger
    context = ray.init(
        address=resources.address or "local",
        include_dashboard=None if resources.address else True,
        log_to_driver=False,
        logging_level="ERROR",
    )
    have = ray.cluster_resources()
    fit = int(have.get("CPU", 0) // resources.cpus_per_trial)
    if resources.gpus_per_trial:
        fit = min(fit, int(have.get("GPU", 0) / resources.gpus_per_trial))
    if fit < 1:
        ray.shutdown()
        raise BadInput(
            f"a trial must fit the cluster, but --cpus-per-trial {resources.cpus_per_trial} --gpus-per-trial "
            f"{resources.gpus_per_trial:g} exceeds its {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs"
        )
    url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
    return url, min(fit, resources.concurrency or fit)


def check_address(address: str | None) -> None:
    """Raises BadInput within seconds for an address where nothing answers; Ray itself would wait for minutes."""
    if address is None or address == "auto":
        return
    if "://" in address:
        job = "ray job submit --address http://HEAD:8265 -- ablate study ..."
        raise BadInput(f"--address must be HOST:PORT of a Ray cluster, but got {address!r}; for a remote driver run `{job}`")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise BadInput(f"--address must be HOST:PORT of a Ray cluster, but {address!r}: {error}; try `ray status`") from None


def distribute(
    ask: Callable[[], TrialSpec | None],
    tell: Callable[[Record], list[str]],
    watch: Callable[[Running], None],
    *,
    dataset: Dataset,
    path: Path,
    trials: int,
    concurrency: int,
    resources: Resources,
) -> None:
    """Run trials until `ask` has none left or `trials` have been proposed; Ray must be connected.

    Every record is written before it is told; `tell` returns the trials whose weights are kept. `watch` is called
    again and again with what is running.
    """
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    writer = ray.remote(Writer).options(num_cpus=0, scheduling_strategy=here).remote(path)
    proposer = _Proposer(ask, tell, writer)
    trainable = tune.with_parameters(_Worker, dataset=dataset, writer=writer, threads=resources.cpus_per_trial)
    needs = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=proposer,
            num_samples=trials,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(path / ".tune"),
            verbose=0,
            callbacks=[_Watcher(proposer, watch)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


class _Worker(tune.Trainable):
    """One actor, many trials: a step is an epoch, and the last step hands the outcome to the writer."""

    def setup(self, config: dict[str, Any], dataset: Dataset, writer: Any, threads: int) -> None:
        torch.set_num_threads(threads)
        self.dataset, self.writer = dataset, writer
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        spec = TrialSpec.model_validate(new_config["spec"])
        self.epochs: Generator[Epoch, None, Outcome] = trial_steps(spec, new_config["trial_id"], self.dataset)
        return True

    def step(self) -> dict[str, Any]:
        try:
            epoch = next(self.epochs)
            return {"epoch": epoch.epoch, "accuracy": epoch.accuracy}
        except StopIteration as end:
            outcome: Outcome = end.value
            ray.get(self.writer.write.remote(outcome.record, outcome.predictions, outcome.weights))
            return {"done": True, "record": True}


class _Unsaved:
    """Tune pickles its parts to restore an experiment from them; these stay empty: a run goes on from its ledger."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Proposer(_Unsaved, Searcher):
    """ask() and tell() in the shape that Ray Tune asks for; keeps the specs of what is running."""

    def __init__(self, ask: Callable[[], TrialSpec | None], tell: Callable[[Record], list[str]], writer: Any) -> None:
        super().__init__()
        self.ask, self.tell, self.writer = ask, tell, writer
        self.running: dict[str, dict[str, Any]] = {}  # by Tune's id
        self.specs: dict[str, TrialSpec] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        spec = self.ask()
        if spec is None:
            return Searcher.FINISHED
        self.specs[trial_id] = spec
        blank = blank_record(spec, name := trial_id_of(spec))
        self.running[trial_id] = {
            "trial_id": name,
            "arm": blank["arm"],
            "epoch": 0,
            "epochs": blank["epochs"],
            "accuracy": None,
        }
        return {"spec": spec.model_dump(), "trial_id": name}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result:
            self.running[trial_id] |= {"epoch": result["epoch"], "accuracy": result["accuracy"]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        name = self.running.pop(trial_id)["trial_id"]
        spec = self.specs.pop(trial_id)
        if error or not result or not result.get("record"):
            record = blank_record(spec, name) | {
                "error": "the worker died or raised; see the logs below /tmp/ray/session_latest/logs"
            }
            ray.get(self.writer.write.remote(record, {}, {}))
        record = ray.get(self.writer.take.remote(name))
        ray.get(self.writer.keep.remote(self.tell(record)))


class _Watcher(_Unsaved, tune.Callback):
    def __init__(self, proposer: _Proposer, watch: Callable[[Running], None]) -> None:
        self.proposer, self.watch = proposer, watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.watch(list(self.proposer.running.values()))


def disconnect() -> None:
    """Leave the cluster; a Ray that was started here ends."""
    ray.shutdown()
