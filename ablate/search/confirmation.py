"""Confirmation: the members of a front once more, with further seeds and on the test set, so that luck is not a result."""

from collections.abc import Iterator, Sequence

from ablate.config.canonical import effective
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record


def confirmations(study: StudySpec, front: Sequence[Record]) -> Iterator[TrialSpec]:
    """Each member with the study's next seeds, seed after seed: paired, and tested. A search's own trials never are."""
    for seed in range(study.seed + 1, study.seed + 1 + study.confirm):
        for member in front:
            yield effective(trial_of(member).model_copy(update={"seed": seed, "test": True}))


def is_searched(record: Record) -> bool:
    """Whether a record of a searching study is the search's, and not one that confirms."""
    return not record["spec"]["test"]
