"""What a tracker is told: of a trial its parameters, its curve and its outcome; of a run its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from ablate.analysis.parameters import fields_of, shared_fields
from ablate.config.canonical import OFF
from ablate.plugins import is_plugin
from ablate.runs.provenance_file import identity, read_provenance
from ablate.runs.record import OUTCOME, Record
from ablate.runs.run import Run


@dataclass(frozen=True)
class TrialEntry:
    """A trial as every tracker shows it.

    Attributes:
        name: The trial's id.
        status: "complete", "pruned" or "failed".
        parameters: What was asked, named as the axes of a search.
        curve: What each epoch measured, by epoch: `epoch/accuracy`, `epoch/loss`, `epoch/train_loss`, and of
            smaller trainings before `one_in_9/accuracy` and so on.
        outcome: The numbers that the trial came to, named as in its record.
        text: Status, arm, device and, where there is one, the error.
        started: Seconds since 1970; None where it is not known.
        seconds: How long it trained; 0 where it is not known.
    """

    name: str
    status: str
    parameters: dict[str, Any]
    curve: dict[int, dict[str, float]]
    outcome: dict[str, float]
    text: dict[str, str]
    started: float | None
    seconds: float


@dataclass(frozen=True)
class RunEntry:
    """A run as trackers show it.

    Attributes:
        identity: Tells it from other runs, whatever its folder is called.
        path: Its folder.
        question: Of its study.
        groups: The layer groups that its study searches.
    """

    identity: str
    path: Path
    question: str
    groups: tuple[str, ...]


class Tracker(Protocol):
    """A place that shows a run's trials. Each method may raise whatever the tracker's client raises."""

    def known(self) -> set[str]:
        """Begin or continue the run there. Returns the ids of the trials that it has whole."""

    def add(self, trial: TrialEntry) -> None:
        """Add a trial that is not known."""

    def finish(self, status: str, figures: Sequence[Path], tables: Sequence[Path]) -> None:
        """End the run there, and replace its figures (PNG) and tables (CSV). status: as of `State`."""

    @property
    def hint(self) -> str:
        """Where to look, or the command that shows it."""


def run_entry(run: Run) -> RunEntry:
    """Describe a run."""
    groups = map(str, read_provenance(run.path).get("layer_groups", []))
    return RunEntry(identity(run.path), run.path, run.study.question, tuple(groups))


def trial_entry(record: Record, groups: Sequence[str]) -> TrialEntry:
    """Describe a trial.

    Args:
        record: Its record.
        groups: The layer groups that its study searches.
    """
    spec = record["spec"]
    fields = {"seed": spec["seed"], "model": spec["model"], "data": spec["data"], "test": spec["test"]}
    named = fields_of(spec, groups, shared_fields([spec]))
    shown = {name: value for name, value in named.items() if not _is_off(name, value)}
    own = [name for name in record if is_plugin(name)]
    outcome = {name: record.get(name) for name in (*OUTCOME, *own)}
    text = {name: record.get(name) for name in ("status", "arm", "device", "error")}
    return TrialEntry(
        name=record["trial_id"],
        status=record["status"],
        parameters=fields | shown,
        curve=_curve(record),
        outcome={name: value for name, value in outcome.items() if isinstance(value, int | float)},
        text={name: str(value) for name, value in text.items() if value is not None},
        started=_seconds(record["started_at"]),
        seconds=record["train_seconds"] or 0.0,
    )


def _is_off(name: str, value: Any) -> bool:
    """Whether a field was added after the first records, and changes nothing here."""
    field = name.rpartition(".")[2]
    return field in OFF and value == ("none" if OFF[field] is None else OFF[field])


def _curve(record: Record) -> dict[int, dict[str, float]]:
    curve: dict[int, dict[str, float]] = {}
    rows = [("epoch", row) for row in record["curve"]]
    rows += [(f"one_in_{row['one_in']}", row) for row in record.get("rungs", [])]
    for prefix, row in rows:
        numbers = {name: row.get(name) for name in ("train_loss", "loss", "accuracy")}
        measured = {f"{prefix}/{name}": x for name, x in numbers.items() if isinstance(x, int | float)}
        curve[row["epoch"]] = curve.get(row["epoch"], {}) | measured
    return dict(sorted(curve.items()))


def _seconds(started_at: str | None) -> float | None:
    try:
        return datetime.fromisoformat(started_at or "").timestamp()
    except ValueError:
        return None
