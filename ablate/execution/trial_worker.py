"""The Ray actor that runs trials."""

import faulthandler
import logging
import sys
from collections.abc import Callable, Generator
from typing import Any

import ray
from ray import tune

from ablate.config.trial_spec import TrialSpec
from ablate.errors import NonFinite
from ablate.execution.ray_cluster import await_write
from ablate.formatting import describe_layers
from ablate.runs.progress import EpochProgress, listen
from ablate.runs.state import progress_of

log = logging.getLogger(__name__)
# (spec, trial_id, state, threads=) -> a generator of epochs that returns an Outcome
Steps = Callable[..., Generator[Any, None, Any]]


class TrialWorker(tune.Trainable):
    """One actor that runs many trials. A step is an epoch, and the last step hands the outcome to the writer.

    The Ray dashboard and the logs show it by its slot: "slot 0", "slot 1", ...
    """

    def setup(
        self,
        config: dict[str, Any],
        steps: Steps,
        writer: Any,
        storage: Any,
        threads: int,
        minutes_per_trial: float,
        early_stopping: bool,
    ) -> None:
        """Tune calls this once for each actor.

        Args:
            config: The first trial: its `trial_id`, its `spec` as plain data, and the actor's `slot`.
            steps: Makes a trial's generator of epochs.
            writer: The run's one writer, an actor.
            storage: Where the state of unfinished trials is kept; None: nowhere.
            threads: CPU threads of a trial.
            minutes_per_trial: Then the process ends itself.
            early_stopping: Whether the record so far is sent to the writer after each epoch.
        """
        logging.basicConfig(stream=sys.stdout, format="%(message)s")  # Ray shows what the worker prints
        logging.getLogger("ablate").setLevel(logging.INFO)
        self.slot, self.early_stopping = config["slot"], early_stopping
        self.steps, self.writer, self.storage = steps, writer, storage
        self.threads, self.minutes_per_trial = threads, minutes_per_trial
        listen(self._report)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Tune calls this when it gives another trial to the actor. True: no new actor is needed."""
        self._limit_time()
        self.began = False
        self.name, spec = new_config["trial_id"], TrialSpec.model_validate(new_config["spec"])
        state = self.storage.load(self.name) if self.storage else None
        self.epochs = self.steps(spec, self.name, state, threads=self.threads)
        resumed = f" (after {progress_of(state)})" if state else ""
        log.info("trial %s: %s%s", self.name, describe_layers(new_config["spec"]), resumed)
        return True

    def step(self) -> dict[str, Any]:
        """Train for an epoch and report it, or record the outcome once there is no further epoch."""
        if not self.began:  # the driver counts the trial's time from here too
            self._limit_time()
        self.began = True
        try:
            epoch = next(self.epochs)
        except StopIteration as end:
            return self._record(end.value)
        self._report(None)
        if self.storage:
            self._save(epoch.state)
        report = {
            "epoch": epoch.epoch,
            "one_in": epoch.state.get("one_in", 1),
            "accuracy": epoch.accuracy,
            "slot": self.slot,
        }
        log.info("trial %s: %s, accuracy %.1f %%", self.name, progress_of(report), 100 * epoch.accuracy)
        if self.early_stopping:
            ray.get(self.writer.note.remote(epoch.record))
        return report

    def _record(self, outcome: Any) -> dict[str, Any]:
        await_write(self.writer.write.remote(outcome.record, outcome.predictions, outcome.weights))
        if self.storage:
            self.storage.drop(self.name)
        faulthandler.cancel_dump_traceback_later()
        error = outcome.record["error"] or ""
        log.info("trial %s: %s %s", self.name, outcome.record["status"], error)
        if error and not error.startswith(NonFinite.__name__):
            # An error may have broken the process: after one of CUDA's, no CUDA call succeeds.
            raise RuntimeError("the next trial gets a fresh process")
        return {"done": True, "recorded": True}

    def _report(self, now: EpochProgress | None) -> None:
        """Tell the driver how far the epoch is, without waiting. None: it has ended."""
        self.writer.report.remote(self.name, now)

    def _limit_time(self) -> None:
        """End this process, with a traceback in its log, when the trial exceeds its time from now on."""
        faulthandler.dump_traceback_later(60 * self.minutes_per_trial, exit=True)

    def _save(self, state: dict[str, Any]) -> None:
        try:
            self.storage.save(self.name, state)
        except OSError as error:  # the trial goes on without it
            log.warning("trial %s: epoch %d could not be kept: %s", self.name, state["epoch"], error)

    def __repr__(self) -> str:
        return f"slot {self.slot}"
