"""What a trial leaves: the fields of a record, one line of the ledger."""

from datetime import UTC, datetime
from typing import Any

from ablate.config.trial_spec import TrialSpec

Record = dict[str, Any]
SCHEMA = 1
ASKED = ("schema", "trial_id", "spec", "status", "arm", "seed", "fraction", "epochs")
LATER = ("evaluation_batch",)  # fields that older ledgers lack
FOUND = (
    *("images", "steps", "accuracy", "loss", "test_accuracy", "test_loss"),
    *("size_bytes", "parameters", "macs", "bitops", "latency_ms"),
    *("train_seconds", "threads", "device", "error"),
    *LATER,
)
FIELDS = (*ASKED, *FOUND, "curve", "started_at")


def blank_record(spec: TrialSpec, name: str) -> Record:
    """A record with every field, of a trial that has not got anywhere yet and so has failed."""
    asked = (
        SCHEMA,
        name,
        spec.model_dump(),
        "failed",
        arm(spec),
        spec.seed,
        spec.fraction,
        spec.recipe.epochs,
    )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return dict(zip(ASKED, asked, strict=True)) | dict.fromkeys(FOUND) | {"curve": [], "started_at": started}


def arm(spec: TrialSpec) -> str:
    """The kinds of quantized weights in a trial, "full" where there are none."""
    return "+".join(sorted({layer.weights for layer in spec.layers.values()})) or "full"
