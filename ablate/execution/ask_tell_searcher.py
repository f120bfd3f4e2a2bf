"""The study's search behind Ray Tune's `Searcher` interface."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune.search import Searcher

from ablate.config.trial_spec import TrialSpec
from ablate.errors import WriteFailed
from ablate.execution.ray_cluster import Resources, await_write
from ablate.execution.running_trial import RunningTrial
from ablate.execution.worker_failures import FailureKind, classify
from ablate.runs.record import Record, blank_record

Proposal = tuple[str, TrialSpec]  # a trial's id, and the trial
# (trial_id, trial, its record so far) -> why the trial ends here, or ""
ShouldPrune = Callable[[str, TrialSpec, Record], str]
RETRIES = 2  # of a trial whose worker or node died
RETRIES_BEFORE_START = (
    8  # of a trial that has not begun: the death of an idle worker is not the trial's fault
)


class Stateless:
    """A part of Tune without state to pickle. A run resumes from its ledger, never from Tune's files."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune's hook to save the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's hook to restore the state."""


class AskTellSearcher(Stateless, Searcher):
    """Gives Tune the trials of an ask-and-tell search, and runs a trial again when its worker died.

    Args:
        ask: Returns the next trial, None when there is none.
        tell: Takes a record that was written; returns the ids of the trials whose weights are kept.
        stop: Whether the study must stop.
        writer: The run's one writer, an actor.
        storage: Where the state of unfinished trials is kept; None: nowhere.
        should_prune: Says why a trial ends early; None: no trial does.
        resources: What the study may use, with `concurrency` resolved.
    """

    def __init__(
        self,
        ask: Callable[[], Proposal | None],
        tell: Callable[[Record], list[str]],
        *,
        stop: Callable[[], bool],
        writer: Any,
        storage: Any,
        should_prune: ShouldPrune | None,
        resources: Resources,
    ) -> None:
        super().__init__()
        self.ask, self.tell, self.stop, self.should_prune = ask, tell, stop, should_prune
        self.writer, self.storage = writer, storage
        self.minutes_per_trial, self.slots = resources.minutes_per_trial, range(resources.concurrency or 1)
        self.running: dict[str, RunningTrial] = {}  # by Tune's id
        self.requeued: list[Proposal] = []
        self.deaths: Counter[str] = Counter()  # by trial id, since its last epoch whose state was kept
        self.total_deaths = 0  # of workers
        self.exhausted = False
        self.fault: Exception | None = None  # an exception that ends the study

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Tune's hook for metric, mode and space. The search has its own."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config.

        Args:
            trial_id: Tune's id of the trial.

        Returns:
            `spec`, `trial_id` and `slot`; FINISHED when no trial is left; None while a running one may be
            requeued.
        """
        if self.fault or self.stop():
            proposal = None
        else:
            proposal = self.requeued.pop() if self.requeued else self.ask()
        self.exhausted = proposal is None
        if proposal is None:
            return None if self.running else Searcher.FINISHED
        name, spec = proposal
        occupied = {trial.slot for trial in self.running.values()}
        slot = next(slot for slot in self.slots if slot not in occupied)
        self.running[trial_id] = RunningTrial(name, spec, slot, 1 + self.deaths[name])
        return {"spec": spec.model_dump(), "trial_id": name, "slot": slot}

    def expects_trials(self) -> bool:
        """Whether more trials may be proposed."""
        return not self.exhausted or bool(self.requeued)

    def may_take_idle_actor(self, trial_id: str) -> bool:
        """Whether a trial takes an idle actor while its own starts, which never does if a node died."""
        return not self.expects_trials() or self.running[trial_id].attempt > 1

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take in what a worker reports after an epoch."""
        if "epoch" in result:
            trial = self.running[trial_id]
            trial.update(result)
            if self.storage:
                self.deaths[trial.trial_id] = 0

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell a trial that has ended. One that was stopped leaves no record and runs again on resume."""
        if error:  # `on_failure` has it
            return
        trial = self.running.pop(trial_id)
        with self.noting_faults():
            if trial.prune_reason:
                self._prune(trial)
            elif result and result.get("recorded"):
                self._close(trial.trial_id)

    def ends(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends with the epoch that it has just reported. All do once the study must stop."""
        if self.fault is not None or self.stop():
            return True
        if not self.should_prune or "epoch" not in result:
            return False
        trial = self.running[trial_id]
        with self.noting_faults():
            so_far = ray.get(self.writer.noted.remote(trial.trial_id))
            trial.prune_reason = self.should_prune(trial.trial_id, trial.spec, so_far)
        return bool(trial.prune_reason)

    @contextmanager
    def noting_faults(self) -> Iterator[None]:
        """Within: an exception is kept, and ends the study after the running epochs. Tune would hide it."""
        try:
            yield
        except Exception as fault:
            self.fault = self.fault or fault

    def on_failure(self, trial_id: str, error: Exception | None, message: str) -> None:
        """Requeue or record a trial whose worker failed. Only a worker's death is worth another attempt.

        Args:
            trial_id: Tune's id of the trial.
            error: The exception that Tune has stored; None where there is none.
            message: What Ray says about the failure.

        Raises:
            WriteFailed: The run's folder could not be written.
        """
        trial = self.running.pop(trial_id)
        failure = classify(
            error,
            message,
            recorded=ray.get(self.writer.has.remote(trial.trial_id)),
            seconds=time.monotonic() - trial.started,
            minutes_per_trial=self.minutes_per_trial,
        )
        if failure.kind is FailureKind.RECORDED:
            return self._close(trial.trial_id)
        if trouble := ray.get(self.writer.trouble.remote()):
            raise WriteFailed(trouble)
        if failure.kind is not FailureKind.DIED:
            self._record_failure(trial, failure.reason)
        elif not self._requeue(trial):
            deaths = self.deaths[trial.trial_id]
            self._record_failure(trial, f"its worker died {deaths} times, at last: {failure.reason}")

    def _requeue(self, trial: RunningTrial) -> bool:
        """Whether a trial whose worker died is tried again."""
        self.total_deaths += 1
        self.deaths[trial.trial_id] += 1
        retries = RETRIES if trial.began else RETRIES_BEFORE_START
        if self.deaths[trial.trial_id] > retries:
            return False
        self.requeued.append((trial.trial_id, trial.spec))
        return True

    def _record_failure(self, trial: RunningTrial, reason: str) -> None:
        record = blank_record(trial.spec, trial.trial_id) | {"error": " ".join(reason.split())}
        await_write(self.writer.write.remote(record, {}, {}))
        self._forget(trial.trial_id)

    def _prune(self, trial: RunningTrial) -> None:
        """Record a trial as far as it has come."""
        await_write(self.writer.prune.remote(trial.trial_id, trial.prune_reason))
        self._forget(trial.trial_id)

    def _forget(self, name: str) -> None:
        """Drop the state of a trial that is recorded, and tell its record."""
        if self.storage:
            self.storage.drop(name)
        self._close(name)

    def _close(self, name: str) -> None:
        """Tell a record that was written, and delete the weights of trials that left the front."""
        ray.get(self.writer.keep.remote(self.tell(ray.get(self.writer.take.remote(name)))))
