"""Distributes trials with Ray Tune."""

import faulthandler
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ablate.cluster import Resources
from ablate.ledger import Record, arm, blank_record
from ablate.spec import TrialSpec
from ablate.words import in_words

Asked = tuple[str, TrialSpec]  # a trial's id, and the trial
Steps = Callable[..., Generator[Any, None, Any]]  # (spec, trial_id, state, threads=) -> epochs, at last an Outcome
Running = list[dict[str, Any]]  # per running trial: trial_id, arm, layers, slot, attempt, epoch, epochs, accuracy
RETRIES = 2  # of a trial whose worker or node died


def distribute(
    ask: Callable[[], Asked | None],
    tell: Callable[[Record], list[str]],
    watch: Callable[[Running, int], None],
    *,
    stop: Callable[[], bool],
    steps: Steps,
    path: Path,
    writer: Any,
    storage: Any = None,
    resources: Resources,
) -> None:
    """Run trials until `ask` has none left or `stop` says so; Ray must be connected.

    Every record is written before it is told; `tell` returns the trials whose weights are kept. `watch` is called
    again and again with what is running and how often a worker died. After `stop`, running trials end with their
    current epoch, unrecorded.
    With a Storage, a trial's state is kept there after each epoch until the trial is recorded.
    """
    proposer = _Proposer(ask, tell, stop, writer, storage, resources)
    limits = {"threads": resources.cpus_per_trial, "minutes": resources.minutes_per_trial}
    trainable = tune.with_parameters(_Worker, steps=steps, writer=writer, storage=storage, **limits)
    needs = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=proposer,
            scheduler=_ActorKeeper(resources.concurrency or 1),
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


class _Worker(tune.Trainable):
    """One actor, many trials: a step is an epoch, and the last step hands the outcome to the writer.

    The Ray dashboard and the logs call it by its slot: "slot 0", "slot 1", ...
    """

    def setup(self, config: dict[str, Any], steps: Steps, writer: Any, storage: Any, threads: int, minutes: float) -> None:
        self.slot = config["slot"]
        self.steps, self.writer, self.storage, self.threads, self.minutes = steps, writer, storage, threads, minutes
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        faulthandler.dump_traceback_later(60 * self.minutes, exit=True)  # ends a hung trial from inside
        self.name, spec = new_config["trial_id"], TrialSpec.model_validate(new_config["spec"])
        state = self.storage.load(self.name) if self.storage else None
        self.epochs = self.steps(spec, self.name, state, threads=self.threads)
        print(f"trial {self.name}: {in_words(new_config['spec'])}", f"(after epoch {state['epoch']})" if state else "")
        return True

    def step(self) -> dict[str, Any]:
        try:
            epoch = next(self.epochs)
            if self.storage:
                self._keep(epoch.state)
            print(f"trial {self.name}: epoch {epoch.epoch}, accuracy {epoch.accuracy:.1%}")
            return {"epoch": epoch.epoch, "accuracy": epoch.accuracy, "slot": self.slot}
        except StopIteration as end:
            outcome = end.value
            faulthandler.cancel_dump_traceback_later()
            ray.get(self.writer.write.remote(outcome.record, outcome.predictions, outcome.weights))
            if self.storage:
                self.storage.drop(self.name)
            print(f"trial {self.name}: {outcome.record['status']} {outcome.record['error'] or ''}")
            return {"done": True, "recorded": True}

    def _keep(self, state: dict[str, Any]) -> None:
        try:
            self.storage.save(self.name, state)
        except OSError as error:  # a trial must not fail for it
            print(f"trial {self.name}: epoch {state['epoch']} could not be kept: {error}")

    def __repr__(self) -> str:
        return f"slot {self.slot}"


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

    trial_id: str
    spec: TrialSpec
    slot: int
    attempt: int
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    accuracy: float | None = None


class _Proposer(_Unsaved, Searcher):
    """ask() and tell() in the shape that Ray Tune asks for; runs a trial again when its worker or node died."""

    def __init__(
        self,
        ask: Callable[[], Asked | None],
        tell: Callable[[Record], list[str]],
        stop: Callable[[], bool],
        writer: Any,
        storage: Any,
        resources: Resources,
    ) -> None:
        super().__init__()
        self.ask, self.tell, self.stop, self.writer, self.storage = ask, tell, stop, writer, storage
        self.minutes, self.slots = resources.minutes_per_trial, range(resources.concurrency or 1)
        self.running: dict[str, _Running] = {}  # by Tune's id
        self.again: list[Asked] = []
        self.deaths: Counter[str] = Counter()  # by trial id

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial; FINISHED when none is left; None while one of those running may still have to run again."""
        asked = None if self.stop() else self.again.pop() if self.again else self.ask()
        if asked is None:
            return None if self.running else Searcher.FINISHED
        name, spec = asked
        taken = {trial.slot for trial in self.running.values()}
        slot = next(slot for slot in self.slots if slot not in taken)
        self.running[trial_id] = _Running(name, spec, slot, 1 + self.deaths[name])
        return {"spec": spec.model_dump(), "trial_id": name, "slot": slot}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result:
            trial = self.running[trial_id]
            trial.epoch, trial.accuracy, trial.slot = result["epoch"], result["accuracy"], result["slot"]

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
                return self.again.append((name, trial.spec))
            reason = f"its worker died {self.deaths[name]} times, at last: {_why(error)}"
        record = blank_record(trial.spec, name) | {"error": " ".join(reason.split())}
        ray.get(self.writer.write.remote(record, {}, {}))
        if self.storage:
            self.storage.drop(name)
        self.close(name)

    def close(self, name: str) -> None:
        """Tell a written record, and drop the weights that are no longer on the front."""
        ray.get(self.writer.keep.remote(self.tell(ray.get(self.writer.take.remote(name)))))


def _why(death: Exception | None) -> str:
    """What Ray says about a worker's death, without its advice."""
    lines = [line.strip() for line in str(death).splitlines()]
    told = [line for line in lines if line.startswith(("Worker exit type", "Memory on the node", "The node", "The actor"))]
    return " ".join(told or lines[:1])[:500]


class _ActorKeeper(FIFOScheduler):
    """First in, first out; and no actor ends while trials may come. Tune would keep one of several that fall idle together.

    A new actor costs the imports of torch and transformers, some ten seconds of a processor.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self.slots and hasattr(tune_controller, "_actor_cache"):  # Ray's own, so it may go
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=self.slots)
            self.slots = 0


class _Stopper(_Unsaved, tune.Stopper):
    """Ends each running trial with its current epoch once `stop` says so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop()

    def stop_all(self) -> bool:
        return False  # the proposer ends the experiment


class _Watcher(_Unsaved, tune.Callback):
    def __init__(self, proposer: _Proposer, watch: Callable[[Running, int], None]) -> None:
        self.proposer, self.watch = proposer, watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.watch([_row(trial) for trial in self.proposer.running.values()], self.proposer.deaths.total())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.proposer.running[trial.trial_id].started = time.monotonic()  # it may have waited for its resources

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        kept = trial.pickled_error_file  # what the driver has just put there; Tune looks for it elsewhere
        self.proposer.failed(trial.trial_id, cloudpickle.loads(Path(kept).read_bytes()) if kept else None)


def _row(trial: _Running) -> dict[str, Any]:
    row: dict[str, Any] = {"trial_id": trial.trial_id, "arm": arm(trial.spec), "layers": in_words(trial.spec.model_dump())}
    row |= {"slot": trial.slot, "attempt": trial.attempt, "epoch": trial.epoch, "epochs": trial.spec.recipe.epochs}
    return row | {"accuracy": trial.accuracy}
