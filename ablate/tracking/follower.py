"""Tracks a run: whatever its ledger has and the tracker lacks is sent, while the study runs or after it."""

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ablate.errors import AblateError
from ablate.labels import one_line, shortened
from ablate.runs.follow import alone, follow
from ablate.runs.run import Run
from ablate.tracking.destination import Destination
from ablate.tracking.mlflow_tracker import MlflowTracker
from ablate.tracking.tensorboard_tracker import TensorboardTracker
from ablate.tracking.trial_entry import RunEntry, Tracker, run_entry, trial_entry
from ablate.tracking.wandb_tracker import WandbTracker

log = logging.getLogger(__name__)
TRACKERS: dict[str, Callable[[str, RunEntry], Tracker]] = {
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
}
RETRY_SECONDS = 30.0
PATIENCE_SECONDS = 60.0  # at a study's end, without a further trial that was sent
INTERRUPTED_SECONDS = 10.0  # after Ctrl-C, in all


def track(
    run: Run,
    where: Destination,
    *,
    is_over: Callable[[], bool],
    wait: Callable[[float], object] = time.sleep,
    sent: list[str] | None = None,
) -> tuple[list[str], str]:
    """Send a run's trials to a tracker as they are recorded, then its figures and tables.

    Args:
        run: The run.
        where: The tracker.
        is_over: Whether the run has ended, and its figures and tables are there.
        wait: Is called with the seconds until the next look.
        sent: Is extended by the id of each trial that was sent.

    Returns:
        The ids of the trials that were sent, without those that the tracker had already; and where to look.

    Raises:
        BadInput: Another process tracks the run there.
        Exception: Whatever the tracker's client raises.
    """
    sent = [] if sent is None else sent
    entry = run_entry(run)
    with alone(f"{entry.identity} {where.kind}:{where.where}", f"{run.path.name!r} to {where}"):
        tracker = TRACKERS[where.kind](where.where, entry)
        known = tracker.known()
        for record in follow(run.path / "ledger.jsonl", is_over, wait):
            if record["trial_id"] not in known:
                tracker.add(trial_entry(record, entry.groups))
                sent.append(record["trial_id"])
        figures, tables = sorted(run.path.glob("figures/*.png")), sorted(run.path.glob("tables/*.csv"))
        tracker.finish(str(run.state.get("status", "")), figures, tables)
        return sent, tracker.hint


def reason_of(error: BaseException, where: Destination) -> str:
    """What went wrong at a tracker, on one line and without passwords."""
    text = " ".join(where.redacted(str(error)).split())
    return shortened(text if isinstance(error, AblateError) else f"{type(error).__name__}: {text}", 300)


@contextmanager
def tracked(run: Run, destinations: Sequence[Destination]) -> Iterator[None]:
    """Track a run, in a thread for each tracker, for as long as the context lasts.

    A tracker that fails stops nothing: the log says so once, and it is tried again.

    Args:
        run: The run.
        destinations: The trackers.
    """
    followers = [_Follower(run, where) for where in destinations]
    for follower in followers:
        follower.thread.start()
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        for follower in followers:
            follower.over.set()
        for follower in followers:
            follower.join(PATIENCE_SECONDS if is_whole else INTERRUPTED_SECONDS, again=is_whole)


class _Follower:
    def __init__(self, run: Run, where: Destination) -> None:
        self.run, self.where = run, where
        self.over = threading.Event()
        self.sent: list[str] = []
        self.has_failed = False
        self.thread = threading.Thread(target=self._follow, name=f"track-{where.kind}", daemon=True)

    def join(self, seconds: float, again: bool) -> None:
        """Wait so many seconds for the thread; again: and once more where it has sent a trial in them."""
        n_sent = len(self.sent)
        self.thread.join(seconds)
        while again and self.thread.is_alive() and len(self.sent) > n_sent:
            n_sent = len(self.sent)
            self.thread.join(seconds)
        if self.thread.is_alive():
            self._say(f"it has not taken all within {seconds:.0f} s")

    def _follow(self) -> None:
        while True:
            is_last = self.over.is_set()
            try:
                track(self.run, self.where, is_over=self.over.is_set, wait=self.over.wait, sent=self.sent)
                return
            except (Exception, SystemExit) as error:
                self._say(reason_of(error, self.where))
            if is_last:
                return
            self.over.wait(RETRY_SECONDS)

    def _say(self, reason: str) -> None:
        if self.has_failed:
            return
        self.has_failed = True
        command = f"ablate track {shlex.quote(str(self.run.path))} --to {self.where.kind}"
        log.warning(
            "%s",
            one_line(
                f"Tracking to {self.where} failed, the study goes on: {reason}; `{command}` sends the rest"
            ),
        )
