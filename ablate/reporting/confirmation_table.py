"""The table of confirmed trials: one row a setting, with its interval."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.t_interval import mean_interval, simultaneous
from ablate.config.canonical import effective
from ablate.config.study_spec import StudySpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record, is_candidate, value_of


def table(study: StudySpec, records: Iterable[Record], front: Iterable[str]) -> pd.DataFrame:
    """A row for each setting that is on the front or has further seeds.

    Args:
        study: The study of the records.
        records: Of the search and of its confirmation.
        front: Ids of the trials on the front.

    Returns:
        `search_accuracy` is that of the one seed, on validation, by which the search chose the setting.
        `accuracy` (validation) and `test_accuracy` are means over the `n` seeds that had no part in the
        choice and are tested on what `study.test` says, with t intervals; those of the `means` settings with
        two seeds or more hold together with 95 %. NaN where a value is unknown or unbounded.
    """
    by_setting: dict[str, tuple[Record, list[Record]]] = {}
    on_front, records = set(front), list(records)
    for record in records:
        if is_candidate(record["spec"], study):
            by_setting[setting_of(record)] = (record, [])
    for record in records:
        tested = record["spec"]["test"] == study.test and record["status"] == "complete"
        if tested and setting_of(record) in by_setting:
            by_setting[setting_of(record)][1].append(record)
    means = sum(len(confirmed) > 1 for _, confirmed in by_setting.values())
    rows = [
        _row(study, searched, confirmed, searched["trial_id"] in on_front, means)
        for searched, confirmed in by_setting.values()
        if confirmed or searched["trial_id"] in on_front
    ]
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def _row(
    study: StudySpec, searched: Record, confirmed: list[Record], on_front: bool, means: int
) -> dict[str, Any]:
    row = {
        "trial_id": searched["trial_id"],
        "on_front": on_front,
        "arm": searched["arm"],
        **{name: value_of(searched, name) for name in study.objectives if name != "accuracy"},
        "search_accuracy": searched["accuracy"],
        "n": len(confirmed),
        "means": means,
    }
    for name in ("accuracy", "test_accuracy"):
        values = np.array([value_of(record, name) for record in confirmed], dtype=float)
        mean, low, high = mean_interval(values, simultaneous(means))
        row.update({name: mean, f"{name}_low": low, f"{name}_high": high})
    return row


def setting_of(record: Record) -> str:
    """The same text for a trial of the search and for those that confirm it."""
    return effective(trial_of(record).model_copy(update={"seed": 0, "test": False})).model_dump_json()
