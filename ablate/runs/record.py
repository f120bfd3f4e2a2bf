"""What a trial leaves: the fields of a record, one line of the ledger."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict, cast, get_type_hints

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec

SCHEMA = 1
Status = Literal["complete", "pruned", "failed"]


class CurveRow(TypedDict):
    """What a validation on the way measured."""

    epoch: int
    train_loss: float
    loss: float
    accuracy: float


class RungRow(CurveRow):
    """The same, of a training on one `one_in`-th of the trial's images."""

    one_in: int
    images: int


class Asked(TypedDict):
    """What a record repeats of its trial."""

    schema: int
    trial_id: str
    spec: dict[str, Any]  # a TrialSpec as plain data, with the unknown fields of other versions
    status: Status
    arm: str
    seed: int
    fraction: float
    epochs: int | None


class Outcome(TypedDict):
    """What a trial came to; None where it did not get so far, or where an older version did not record it."""

    images: int | None
    steps: int | None
    accuracy: float | None  # of the validation images, 0 to 1
    loss: float | None
    test_accuracy: float | None
    test_loss: float | None
    size_bytes: int | None
    parameters: int | None
    macs: int | None
    bitops: float | None
    latency_ms: float | None
    train_seconds: float | None
    threads: int | None
    device: str | None
    error: str | None
    calibration_error: float | None  # of the validation images, 0 to 1
    robust_accuracy: float | None  # of the corrupted validation images, 0 to 1, where it is an objective
    peak_memory_bytes: int | None  # of inference with one image, where it is an objective
    energy_mj: float | None  # of inference with one image on `device`, where it is an objective
    evaluation_batch: int | None  # images that share activation scales; None where none do


class Record(Asked, Outcome):
    """One trial, as a line of the ledger holds it.

    A ledger of another version may lack fields or have others: `runs.ledger` fills in and keeps them. The
    value of a user's own objective is a further field, named `module:name`.
    """

    curve: list[CurveRow]
    rungs: NotRequired[list[RungRow]]
    started_at: str | None


OUTCOME = tuple(get_type_hints(Outcome))
FIELDS = (*get_type_hints(Asked), *OUTCOME, "curve", "started_at")


def blank_record(spec: TrialSpec, name: str) -> Record:
    """Return the record of a trial that has not started: it has every field, and its status is "failed".

    Args:
        spec: The trial.
        name: Its id.
    """
    return cast(
        Record,
        {
            "schema": SCHEMA,
            "trial_id": name,
            "spec": spec.model_dump(),
            "status": "failed",
            "arm": arm(spec),
            "seed": spec.seed,
            "fraction": spec.fraction,
            "epochs": spec.recipe.epochs,
            **dict.fromkeys(OUTCOME),
            "curve": [],
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def arm(spec: TrialSpec) -> str:
    """Return the kinds of quantized weights in a trial, "full" where there are none."""
    return "+".join(sorted({layer.weights for layer in spec.layers.values()})) or "full"


def is_candidate(spec: Mapping[str, Any], study: StudySpec) -> bool:
    """Whether a record may be on the front of its study.

    Args:
        spec: Of the record.
        study: Of its run.

    Returns:
        False for a trial of a search that confirms its front, or is a further seed of an anchor.
    """
    return bool(study.design) or not (spec["test"] or spec["seed"] in study.seeds_of_anchors[1:])


def value_of(record: Mapping[str, Any], objective: str) -> float | None:
    """Return a record's value of an objective, None where it has none."""
    value: float | None = record.get(objective)
    return value
