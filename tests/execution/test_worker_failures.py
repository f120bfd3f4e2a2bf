"""What happened to a worker, by what Ray and Tune tell of it."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from ablate.execution.worker_failures import Failure, FailureKind, classify

RAISED = RayTaskError("step", "a traceback", ValueError("it broke"))
MESSAGE = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: TrialWorker
 The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
Refer to the documentation on how to address this.
"""


def kind_of(error=None, message="", *, recorded=False, seconds=1.0):
    return classify(error, message, recorded=recorded, seconds=seconds, minutes_per_trial=1.0)


@pytest.mark.parametrize("error", [None, RAISED, ActorDiedError()])
def test_a_record_counts_whatever_happened_afterwards(error):
    assert kind_of(error, MESSAGE, recorded=True, seconds=61) == Failure(FailureKind.RECORDED)


@pytest.mark.parametrize("error", [None, RAISED, ActorDiedError()])
def test_a_trial_over_its_time_was_ended_for_it(error):
    failure = kind_of(error, MESSAGE, seconds=61)
    assert failure == Failure(FailureKind.TIME_LIMIT, "the trial took more than 1 minutes and was ended")


def test_an_exception_is_told_by_its_type():
    assert kind_of(RAISED, MESSAGE) == Failure(FailureKind.RAISED, "ValueError: it broke")


@pytest.mark.parametrize("error", [None, ActorDiedError()])
def test_all_else_is_a_death_told_without_advice(error):
    failure = kind_of(error, MESSAGE)
    assert failure.kind is FailureKind.DIED
    assert failure.reason == (
        "The actor died unexpectedly before finishing this task. "
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    )


def test_a_death_without_known_facts_is_told_by_its_first_line_in_short():
    assert kind_of(None, "Failure # 1\n\n for a reason\nand more").reason == "for a reason"
    assert len(kind_of(None, "The node " + "x" * 1000).reason) == 500
    assert kind_of(None, "").reason == ""
