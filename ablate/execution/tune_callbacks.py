"""What Ray Tune calls while trials run: a stopper after each epoch, and a callback for all else."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune

from ablate.execution.ask_tell_searcher import AskTellSearcher, Stateless
from ablate.execution.running_trial import RunningRows
from ablate.runs.progress import SECONDS, EpochProgress

# (running trials, how many wait for their resources, how many workers died)
Watch = Callable[[RunningRows, int, int], None]


class EpochStopper(Stateless, tune.Stopper):
    """Ends a running trial after an epoch when it is pruned, and every trial once the study must stop."""

    def __init__(self, searcher: AskTellSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.searcher.ends(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the experiment ends. Trials that still wait for a node do not delay it."""
        running = self.searcher.running.values()
        return self.searcher.ends("", {}) and not any(trial.began for trial in running)


class ProgressCallback(Stateless, tune.Callback):
    """Shows the running trials, and hands failures to the searcher."""

    def __init__(self, searcher: AskTellSearcher, watch: Watch) -> None:
        self.searcher, self.watch = searcher, watch
        self.now: dict[str, EpochProgress] = {}  # how far the epochs are, by trial id
        self.asked, self.answer = time.monotonic(), None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show the running trials. Tune calls this after each event that it has handled."""
        running = self.searcher.running.values()
        self._poll()
        rows = [trial.row(self.now.get(trial.trial_id)) for trial in running if trial.began]
        with self.searcher.noting_faults():
            self.watch(rows, len(running) - len(rows), self.searcher.total_deaths)

    def _poll(self) -> None:
        """Ask the writer once a second how far the epochs are, and do not wait for its answer."""
        if self.answer is None and time.monotonic() - self.asked >= SECONDS:
            self.asked, self.answer = time.monotonic(), self.searcher.writer.progress.remote()
        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            answer, self.answer = self.answer, None
            with suppress(ray.exceptions.RayError):  # a writer that died ends the study elsewhere
                self.now = ray.get(answer)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial's worker has started."""
        self.searcher.running[trial.trial_id].start()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand a failure to the searcher, with the error that Tune has written, unless the disk was full."""
        error, message = None, "for a reason that Ray does not tell"
        with suppress(OSError, EOFError):
            if text := getattr(trial, "error_file", None):
                message = Path(text).read_text(encoding="utf-8", errors="replace")
            if pickled := getattr(trial, "pickled_error_file", None):
                error = cloudpickle.loads(Path(pickled).read_bytes())
        with self.searcher.noting_faults():
            self.searcher.on_failure(trial.trial_id, error, message)
