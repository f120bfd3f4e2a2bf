"""Distributes trials with Ray Tune."""

import faulthandler
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.errors import NonFinite, WriteFailed
from ablate.execution.ray_cluster import Resources
from ablate.execution.tune_patches import keep_actors
from ablate.formatting import describe_layers
from ablate.runs.record import Record, arm, blank_record
from ablate.runs.state import after

Asked = tuple[str, TrialSpec]  # a trial's id, and the trial
Steps = Callable[
    ..., Generator[Any, None, Any]
]  # (spec, trial_id, state, threads=) -> epochs, at last an Outcome
Watch = Callable[
    ["Running", int, int], None
]  # (running, trials that wait for their resources, workers that died)
Running = list[
    dict[str, Any]
]  # per running trial: trial_id, arm, layers, slot, attempt, epoch, epochs, one_in, accuracy
Judge = Callable[
    [str, TrialSpec, Record], str
]  # (trial_id, trial, its record so far) -> why it ends here, or ""
RETRIES = 2  # of a trial whose worker or node died


def distribute(
    ask: Callable[[], Asked | None],
    tell: Callable[[Record], list[str]],
    watch: Watch,
    *,
    stop: Callable[[], bool],
    steps: Steps,
    path: Path,
    writer: Any,
    storage: Any = None,
    judge: Judge | None = None,
    resources: Resources,
) -> None:
    """Run trials until `ask` has none left or `stop` says so; Ray must be connected.

    Every record is written before it is told; `tell` returns the trials whose weights are kept. `watch` is called
    again and again with what is running, how many trials wait for a node, and how many workers died. After `stop`,
    running trials end with their current epoch, unrecorded. Raises WriteFailed when the run's folder cannot be written.
    With a Storage, a trial's state is kept there after each validated epoch until the trial is recorded. With a judge, a trial
    that it gives a reason to end after an epoch, by its record so far, is recorded as pruned.
    """
    proposer = _Proposer(ask, tell, stop, writer, storage, judge, resources)
    limits = {
        "threads": resources.cpus_per_trial,
        "minutes": resources.minutes_per_trial,
        "judged": judge is not None,
    }
    trainable = tune.with_parameters(_Worker, steps=steps, writer=writer, storage=storage, **limits)
    needs = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tuner = tune.Tuner(
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
            stop=_Stopper(proposer),
            callbacks=[_Watcher(proposer, watch)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        with keep_actors(len(proposer.slots), proposer.may_come, proposer.may_swap):
            tuner.fit()
    finally:  # what ails Tune then, on a full disk say, comes of it
        if proposer.fault is not None:
            raise proposer.fault


class _Worker(tune.Trainable):
    """One actor, many trials: a step is an epoch, and the last step hands the outcome to the writer.

    The Ray dashboard and the logs call it by its slot: "slot 0", "slot 1", ...
    """

    def setup(
        self,
        config: dict[str, Any],
        steps: Steps,
        writer: Any,
        storage: Any,
        threads: int,
        minutes: float,
        judged: bool,
    ) -> None:
        logging.basicConfig(
            stream=sys.stdout, format="%(message)s"
        )  # the worker's log shows what is printed and logged
        logging.getLogger("ablate").setLevel(logging.INFO)
        self.slot, self.judged = config["slot"], judged
        self.steps, self.writer, self.storage, self.threads, self.minutes = (
            steps,
            writer,
            storage,
            threads,
            minutes,
        )
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        faulthandler.dump_traceback_later(60 * self.minutes, exit=True)  # ends a hung trial from inside
        self.begun = False
        self.name, spec = new_config["trial_id"], TrialSpec.model_validate(new_config["spec"])
        state = self.storage.load(self.name) if self.storage else None
        self.epochs = self.steps(spec, self.name, state, threads=self.threads)
        print(
            f"trial {self.name}: {describe_layers(new_config['spec'])}",
            f"(after {after(state)})" if state else "",
        )
        return True

    def step(self) -> dict[str, Any]:
        if not self.begun:  # the driver counts from here too
            faulthandler.dump_traceback_later(60 * self.minutes, exit=True)
        self.begun = True
        try:
            epoch = next(self.epochs)
            if self.storage:
                self._keep(epoch.state)
            one_in = epoch.state.get("one_in", 1)
            report = {"epoch": epoch.epoch, "one_in": one_in, "accuracy": epoch.accuracy, "slot": self.slot}
            print(f"trial {self.name}: {after(report)}, accuracy {epoch.accuracy:.1%}")
            if self.judged:
                ray.get(self.writer.note.remote(epoch.record))
            return report
        except StopIteration as end:
            outcome = end.value
            _write(self.writer, outcome.record, outcome.predictions, outcome.weights)
            if self.storage:
                self.storage.drop(self.name)
            faulthandler.cancel_dump_traceback_later()
            error = outcome.record["error"] or ""
            print(f"trial {self.name}: {outcome.record['status']} {error}")
            if error and not error.startswith(
                NonFinite.__name__
            ):  # it may have spoilt the process, as CUDA's errors do
                raise RuntimeError("the next trial gets a fresh process") from None
            return {"done": True, "recorded": True}

    def _keep(self, state: dict[str, Any]) -> None:
        try:
            self.storage.save(self.name, state)
        except OSError as error:  # a trial must not fail for it
            print(f"trial {self.name}: epoch {state['epoch']} could not be kept: {error}")

    def __repr__(self) -> str:
        return f"slot {self.slot}"


def _write(writer: Any, record: Record, predictions: dict[str, Any], weights: dict[str, bytes]) -> None:
    try:
        ray.get(writer.write.remote(record, predictions, weights))
    except ray.exceptions.RayTaskError as error:
        raise WriteFailed(str(error.cause)) from None


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
    began: bool = False  # else it waits for its resources
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    one_in: int = 1  # of so many of its images it is trained on one
    accuracy: float | None = None
    verdict: str = ""  # why it ends before its last epoch


class _Proposer(_Unsaved, Searcher):
    """ask() and tell() in the shape that Ray Tune asks for; runs a trial again when its worker or node died."""

    def __init__(
        self,
        ask: Callable[[], Asked | None],
        tell: Callable[[Record], list[str]],
        stop: Callable[[], bool],
        writer: Any,
        storage: Any,
        judge: Judge | None,
        resources: Resources,
    ) -> None:
        super().__init__()
        self.ask, self.tell, self.stop, self.judge, self.writer, self.storage = (
            ask,
            tell,
            stop,
            judge,
            writer,
            storage,
        )
        self.minutes, self.slots = resources.minutes_per_trial, range(resources.concurrency or 1)
        self.running: dict[str, _Running] = {}  # by Tune's id
        self.again: list[Asked] = []
        self.deaths: Counter[str] = Counter()  # by trial id, since it last ended an epoch that was kept
        self.died = 0  # workers, in all
        self.exhausted = False
        self.fault: Exception | None = None  # what the study cannot go on with

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial; FINISHED when none is left; None while one of those running may still have to run again."""
        if self.fault or self.stop():
            asked = None
        else:
            asked = self.again.pop() if self.again else self.ask()
        self.exhausted = asked is None
        if asked is None:
            return None if self.running else Searcher.FINISHED
        name, spec = asked
        taken = {trial.slot for trial in self.running.values()}
        slot = next(slot for slot in self.slots if slot not in taken)
        self.running[trial_id] = _Running(name, spec, slot, 1 + self.deaths[name])
        return {"spec": spec.model_dump(), "trial_id": name, "slot": slot}

    def may_come(self) -> bool:
        """Whether more trials may be asked for."""
        return not self.exhausted or bool(self.again)

    def may_swap(self, trial_id: str) -> bool:
        """Whether a trial whose actor is on the way takes an idle one: its own may never come, if a node died."""
        return not self.may_come() or self.running[trial_id].attempt > 1

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result:
            trial = self.running[trial_id]
            for key in ("epoch", "one_in", "accuracy", "slot"):
                setattr(trial, key, result[key])
            if self.storage:
                self.deaths[trial.trial_id] = 0

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial that ended by itself is told; one that was stopped leaves no record and runs again on resume."""
        if not error:
            trial = self.running.pop(trial_id)
            with self.noting_faults():
                if trial.verdict:
                    self.prune(trial)
                elif result and result.get("recorded"):
                    self.close(trial.trial_id)

    def ends(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends with the epoch that it has just reported: all do once the study must stop."""
        if self.fault is not None or self.stop():
            return True
        if self.judge and "epoch" in result:
            trial = self.running[trial_id]
            with self.noting_faults():
                trial.verdict = self.judge(
                    trial.trial_id, trial.spec, ray.get(self.writer.noted.remote(trial.trial_id))
                )
            return bool(trial.verdict)
        return False

    def prune(self, trial: _Running) -> None:
        """Record a trial as far as it came."""
        try:
            ray.get(self.writer.prune.remote(trial.trial_id, trial.verdict))
        except ray.exceptions.RayTaskError as error:
            raise WriteFailed(str(error.cause)) from None
        if self.storage:
            self.storage.drop(trial.trial_id)
        self.close(trial.trial_id)

    @contextmanager
    def noting_faults(self) -> Iterator[None]:
        """Within: what is raised ends the study once the running trials have ended their epoch; Tune would bury it."""
        try:
            yield
        except Exception as fault:
            self.fault = self.fault or fault

    def failed(self, trial: _Running, error: Exception | None, told: str) -> None:
        """A trial's worker raised, hung or died. Only a death is worth another try."""
        name, limit = trial.trial_id, 60 * self.minutes
        if ray.get(self.writer.has.remote(name)):  # it died after its record was written
            return self.close(name)
        if trouble := ray.get(self.writer.trouble.remote()):
            raise WriteFailed(trouble)
        if time.monotonic() - trial.started > limit:
            reason = f"the trial took more than {self.minutes:g} minutes and was ended"
        elif isinstance(error, ray.exceptions.RayTaskError):
            reason = f"{type(error.cause).__name__}: {error.cause}"
        else:
            self.died += 1
            self.deaths[name] += 1
            if self.deaths[name] <= RETRIES * (
                1 if trial.began else 4
            ):  # an idle worker's late death is not the trial's
                return self.again.append((name, trial.spec))
            reason = f"its worker died {self.deaths[name]} times, at last: {_why(told)}"
        record = blank_record(trial.spec, name) | {"error": " ".join(reason.split())}
        _write(self.writer, record, {}, {})
        if self.storage:
            self.storage.drop(name)
        self.close(name)

    def close(self, name: str) -> None:
        """Tell a written record, and drop the weights that are no longer on the front."""
        ray.get(self.writer.keep.remote(self.tell(ray.get(self.writer.take.remote(name)))))


def _why(told: str) -> str:
    """What Ray says about a worker's death, without its advice."""
    lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith("Failure #")]
    facts = [
        line
        for line in lines
        if line.startswith(("Worker exit type", "Memory on the node", "The node", "The actor"))
    ]
    return " ".join(facts or lines[:1])[:500]


class _Stopper(_Unsaved, tune.Stopper):
    """Ends a running trial with its current epoch once it is hopeless, and each once the study must stop."""

    def __init__(self, proposer: _Proposer) -> None:
        self.proposer = proposer

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.proposer.ends(trial_id, result)

    def stop_all(self) -> bool:
        """Once none runs, those that wait for a node do not hold the study up."""
        return self.proposer.ends("", {}) and not any(trial.began for trial in self.proposer.running.values())


class _Watcher(_Unsaved, TrialProgressCallback):
    """In place of Tune's own, which would keep every trial in memory."""

    def __init__(self, proposer: _Proposer, watch: Watch) -> None:
        self.proposer, self.watch = proposer, watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        began = [trial for trial in self.proposer.running.values() if trial.began]
        with self.proposer.noting_faults():
            self.watch(
                [_row(trial) for trial in began], len(self.proposer.running) - len(began), self.proposer.died
            )

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        started = self.proposer.running[trial.trial_id]
        started.began, started.started = True, time.monotonic()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune has just written the error to the run's disk, pickled or as text, if it was not full."""
        error, told = None, "for a reason that Ray does not tell"
        with suppress(OSError, EOFError):
            told = (
                Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
                if trial.error_file
                else told
            )
            error = (
                cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
                if trial.pickled_error_file
                else None
            )
        with self.proposer.noting_faults():
            self.proposer.failed(self.proposer.running.pop(trial.trial_id), error, told)


def _epochs(recipe: Recipe) -> int | None:
    """None where they depend on the images."""
    return None if recipe.image_views else recipe.epochs


def _row(trial: _Running) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "arm": arm(trial.spec),
        "layers": describe_layers(trial.spec.model_dump()),
    }
    row |= {
        "slot": trial.slot,
        "attempt": trial.attempt,
        "epoch": trial.epoch,
        "epochs": _epochs(trial.spec.recipe),
    }
    return row | {"one_in": trial.one_in, "accuracy": trial.accuracy}
