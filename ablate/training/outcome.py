"""What a trial leaves: its record and files, and what is only measured or computed at its end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from numpy.typing import NDArray

from ablate.config.own_objectives import compute
from ablate.errors import AblateError, BadInput
from ablate.hardware import device
from ablate.plugins import is_plugin
from ablate.profiling.energy import energy_counter, energy_mj
from ablate.profiling.memory import peak_memory_bytes
from ablate.runs.record import Record
from ablate.training.trial import load_packed_trial


@dataclass
class Outcome:
    """A record and the files that belong to it.

    Attributes:
        record: The trial's record.
        predictions: "validation_logits" and "test_logits" (N, classes), "validation_labels" and "test_labels"
            (N,). The test images are those that the trial's spec names, in their order.
        weights: The packed model, by file name.
    """

    record: Record
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)
    weights: dict[str, bytes] = field(default_factory=dict)


def measure_inference(
    record: Record,
    folder: str,
    model: str,
    classes: list[str],
    size: tuple[int, int],
    objectives: Sequence[str],
) -> None:
    """Record what inference with the packed model costs, as far as that is an objective.

    Args:
        record: Changed in place.
        folder: Of the packed model.
        model: The name of the model that was trained.
        classes: The names of what it tells apart.
        size: Height and width of the images, in pixels.
        objectives: Those of the study.

    Raises:
        AblateError: The energy cannot be measured. That fails the trial, and BadInput would fail the study.
    """
    if not {"peak_memory_bytes", "energy_mj"} & {*objectives}:
        return
    packed = load_packed_trial(folder, model, classes)
    if "peak_memory_bytes" in objectives:
        record["peak_memory_bytes"] = peak_memory_bytes(packed, size)
    if "energy_mj" in objectives:
        try:
            counter = energy_counter(device().type == "cuda")
            record["energy_mj"] = energy_mj(packed, size, counter)
        except BadInput as error:
            raise AblateError(str(error)) from None


def compute_own(record: Record, objectives: Sequence[str]) -> None:
    """Record the values of users' own objectives, which see the record as of a complete trial.

    Args:
        record: Changed in place.
        objectives: Those of the study.

    Raises:
        AblateError: Something is wrong with an objective. That fails the trial, and not the study.
    """
    complete: Record = {**record, "status": "complete"}
    try:
        values = {name: compute(name, complete) for name in objectives if is_plugin(name)}
    except BadInput as error:
        raise AblateError(str(error)) from None
    record.update(cast(Record, values))
