"""Why a trial's worker failed, as far as Ray tells."""

from dataclasses import dataclass
from enum import Enum

from ray.exceptions import RayTaskError

MAX_REASON = 500  # characters of what Ray says about a death
# The beginnings of those of Ray's lines that hold facts.
FACTS = ("Worker exit type", "Memory on the node", "The node", "The actor")


class FailureKind(Enum):
    """What happened to a worker."""

    RECORDED = "it had recorded its trial before it failed"
    TIME_LIMIT = "its trial exceeded the time limit"
    RAISED = "it raised an exception"
    DIED = "its process or its node died"


@dataclass(frozen=True)
class Failure:
    """What happened to a worker, and the reason in words; "" where the trial is recorded already."""

    kind: FailureKind
    reason: str = ""


def classify(
    error: Exception | None, message: str, *, recorded: bool, seconds: float, minutes_per_trial: float
) -> Failure:
    """Tell what happened to a worker.

    Args:
        error: The exception that Tune has stored; None where it has stored none that can be read.
        message: What Ray says about the failure.
        recorded: Whether the trial's record was written.
        seconds: How long the trial has run.
        minutes_per_trial: The time limit of a trial. A worker that exceeds it ends its own process.

    Returns:
        The kind of failure and its reason.
    """
    if recorded:
        return Failure(FailureKind.RECORDED)
    if seconds > 60 * minutes_per_trial:
        reason = f"the trial took more than {minutes_per_trial:g} minutes and was ended"
        return Failure(FailureKind.TIME_LIMIT, reason)
    if isinstance(error, RayTaskError):
        return Failure(FailureKind.RAISED, f"{type(error.cause).__name__}: {error.cause}")
    return Failure(FailureKind.DIED, _facts(message))


def _facts(message: str) -> str:
    """What Ray says about a worker's death, without its advice."""
    lines = [line.strip() for line in message.splitlines() if not line.startswith("Failure #")]
    lines = [line for line in lines if line]
    facts = [line for line in lines if line.startswith(FACTS)]
    return " ".join(facts or lines[:1])[:MAX_REASON]
