"""Confirmation: the trials of a front repeated with further seeds and tested, so that luck is no result."""

from collections.abc import Iterator, Sequence

from ablate.config.canonical import effective
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record


def confirmations(study: StudySpec, front: Sequence[Record]) -> Iterator[TrialSpec]:
    """The trials that confirm a front. They are tested, which a search's own trials never are.

    Args:
        study: The study; `confirm` says with how many seeds after those of the search and of its anchors,
            `test` on which test images.
        front: Records of the front's trials.

    Yields:
        Every trial of the front with one seed, then with the next: the seeds are paired.
    """
    first = study.seeds_of_anchors.stop
    for seed in range(first, first + study.confirm):
        for member in front:
            yield effective(trial_of(member).model_copy(update={"seed": seed, "test": study.test}))


def is_searched(record: Record) -> bool:
    """Whether a record of a searching study is a trial of the search, and not one that confirms its front."""
    return not record["spec"]["test"]
