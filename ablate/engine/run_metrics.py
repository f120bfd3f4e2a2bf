"""The values of a run's metrics, as `execution.monitoring` names them."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from ablate.analysis.hypervolume import hypervolume
from ablate.config.objectives import Direction
from ablate.execution.metrics import Readings
from ablate.runs.record import Record, value_of
from ablate.runs.state import RunningRow, State, seconds_left


def readings(
    state: State,
    *,
    trials_left: int,
    front_size: int,
    hypervolume: float,
    best: Mapping[str, Record],
    duplicates: int,
) -> Readings:
    """The metrics of a run.

    Args:
        state: What the run's state.json holds.
        trials_left: Trials without a record.
        front_size: Trials on the Pareto front.
        hypervolume: Share that the front dominates.
        best: The record with the best accuracy of each size class.
        duplicates: Proposals of the sampler that had already been run.

    Returns:
        A metric's name -> its values, each with its labels.
    """
    running, seconds = state["running"], seconds_left(state)
    counts = {
        **state["counts"],
        "running": len(running),
        "waiting": state["waiting"],
        "left": trials_left,
    }
    return {
        "ablate_trials": [({"state": name}, n) for name, n in counts.items()],
        "ablate_front_size": [({}, front_size)],
        "ablate_hypervolume": [({}, hypervolume)],
        "ablate_best_accuracy": [
            ({"size_class": name}, accuracy)
            for name, row in best.items()
            if (accuracy := row["accuracy"]) is not None
        ],
        "ablate_worker_deaths": [({}, state["deaths"])],
        "ablate_duplicates_avoided": [({}, duplicates)],
        "ablate_end_time_seconds": [] if seconds is None else [({}, time.time() + seconds)],
        "ablate_slot_epoch": _by_slot(running, "epoch"),
        "ablate_slot_accuracy": _by_slot(running, "accuracy"),
    }


def _by_slot(
    running: list[RunningRow], key: Literal["epoch", "accuracy"]
) -> list[tuple[dict[str, str], float]]:
    return [
        ({"slot": str(row["slot"]), "trial": row["trial_id"], "layers": row["layers"]}, value)
        for row in running
        if (value := row[key]) is not None
    ]


def hypervolume_share(
    front: Sequence[Record], records: Sequence[Record], directions: Mapping[str, Direction]
) -> float:
    """The share that a front dominates of the box between a reference point and the ideal point.

    The reference has accuracy 0 and the costs of the first complete trial; the ideal accuracy 1 and no costs.

    Args:
        front: The records on the front.
        records: All records, in order; at least one is complete where there is a front.
        directions: "min" or "max" of each objective.

    Returns:
        The share, from 0 to 1.
    """
    if not front or not directions:
        return 0.0
    first = next(record for record in records if record["status"] == "complete")
    scale = {
        name: abs(value_of(first, name) or 1.0) if best == "min" else 1.0 for name, best in directions.items()
    }
    points = [[(value_of(record, name) or 0.0) / scale[name] for name in scale] for record in front]
    reference = [1.0 if best == "min" else 0.0 for best in directions.values()]
    return hypervolume(points, reference, list(directions.values()))
