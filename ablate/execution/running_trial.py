"""A running trial as the driver knows it, and how it is shown in state.json and the live view."""

import time
from dataclasses import dataclass, field
from typing import Any

from ablate.config.trial_spec import TrialSpec
from ablate.formatting import describe_layers
from ablate.runs.progress import EpochProgress
from ablate.runs.record import arm
from ablate.runs.state import RunningRow

RunningRows = list[RunningRow]


@dataclass
class RunningTrial:
    """A trial that was given to a worker and has not ended.

    Attributes:
        trial_id: The trial's id in the ledger. Tune's own id is another one.
        spec: The trial's specification.
        slot: The number of the worker among those that run at once.
        attempt: 1 at first, and one more for each worker that died.
        began: Whether its worker has started; until then it waits for resources.
        started: When it was proposed or, later, when its worker started, by `time.monotonic`.
        epoch: The last epoch that it has reported.
        subset_divisor: It is trained on one in this many of its images.
        accuracy: Validation accuracy after that epoch.
        prune_reason: Why it ends before its last epoch; "" where it does not.
    """

    trial_id: str
    spec: TrialSpec
    slot: int
    attempt: int
    began: bool = False
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    subset_divisor: int = 1
    accuracy: float | None = None
    prune_reason: str = ""

    def start(self) -> None:
        """Note that the trial's worker has started. Its time limit counts from here."""
        self.began, self.started = True, time.monotonic()

    def update(self, report: dict[str, Any]) -> None:
        """Take in what the worker reports after an epoch."""
        self.epoch, self.accuracy, self.slot = report["epoch"], report["accuracy"], report["slot"]
        self.subset_divisor = report["one_in"]

    def row(self, now: EpochProgress | None = None) -> RunningRow:
        """The trial's row in state.json. Its keys are read by other versions too.

        Args:
            now: How far it is within its epoch.
        """
        recipe = self.spec.recipe
        return {
            "trial_id": self.trial_id,
            "arm": arm(self.spec),
            "layers": describe_layers(self.spec.model_dump()),
            "slot": self.slot,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "epochs": None if recipe.image_views else recipe.epochs,  # image views: it depends on the images
            "one_in": self.subset_divisor,
            "accuracy": self.accuracy,
            "now": now,
        }
