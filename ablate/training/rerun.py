"""A recorded trial run again, and compared with its record."""

from typing import Any

import torch

from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.runs.state import progress_of
from ablate.training.run_trial import run_trial

# Fields of a record that an equal run repeats. What is measured, such as energy_mj, it does not.
FIELDS = (
    "trial_id",
    "status",
    "images",
    "steps",
    "accuracy",
    "loss",
    "test_accuracy",
    "size_bytes",
    "parameters",
    "macs",
    "bitops",
)
SOMETIMES = ("calibration_error", "robust_accuracy")  # the same, where the record has them


def compare(record: Record) -> list[dict[str, Any]]:
    """Run a recorded trial again, with as many threads, and compare the results.

    Args:
        record: Of the trial.

    Returns:
        A row per field, and one per epoch for the loss: "field", "recorded", "now" and "same".

    Raises:
        BadInput: The model, the dataset or a layer group is unknown.
    """
    spec, threads = trial_of(record), torch.get_num_threads()
    if spec.recipe.augment is True:  # in a record, true says that images were flipped
        spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"augment": "both"})})
    rungs = [*dict.fromkeys(row["one_in"] for row in record.get("rungs", ()))]
    recorded = _results(record)
    torch.set_num_threads(int(record["threads"] or threads))
    try:
        now = _results(
            run_trial(spec, rungs=rungs, objectives=[name for name in SOMETIMES if name in recorded])
        )
    finally:
        torch.set_num_threads(threads)
    return [
        {"field": name, "recorded": value, "now": now.get(name), "same": value == now.get(name)}
        for name, value in recorded.items()
    ]


def _results(record: Record) -> dict[str, Any]:
    curve = (*record.get("rungs", ()), *record["curve"])
    losses = {f"loss after {progress_of(row)}": row["loss"] for row in curve}
    more = {name: record.get(name) for name in SOMETIMES if record.get(name) is not None}
    return {name: record.get(name) for name in FIELDS} | more | losses
