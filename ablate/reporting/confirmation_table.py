"""The table of confirmed trials: one row a setting, with its interval."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.t_interval import mean_interval
from ablate.config.canonical import effective
from ablate.config.study_spec import StudySpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.search.confirmation import is_searched


def table(study: StudySpec, records: Iterable[Record], front: Iterable[str]) -> pd.DataFrame:
    """A row a setting that is on the front (trial ids) or was confirmed: what the search saw, and what came of more seeds.

    `search_accuracy` is one seed on validation and chose the setting; `accuracy` (validation) and `test_accuracy` are
    means over the n seeds that had no part in the choice, with t intervals.
    """
    by_setting: dict[str, dict[str, Any]] = {}
    on_front, records = set(front), list(records)
    for record in filter(is_searched, records):
        by_setting[_setting(record)] = {"found": record, "confirmed": []}
    for record in records:
        if not is_searched(record) and record["status"] == "complete" and _setting(record) in by_setting:
            by_setting[_setting(record)]["confirmed"].append(record)
    rows = []
    for found, confirmed in (row.values() for row in by_setting.values()):
        if not confirmed and found["trial_id"] not in on_front:
            continue
        row = {"trial_id": found["trial_id"], "on_front": found["trial_id"] in on_front, "arm": found["arm"]}
        row |= {name: found[name] for name in study.objectives if name != "accuracy"}
        row |= {"search_accuracy": found["accuracy"], "n": len(confirmed)}
        for name in ("accuracy", "test_accuracy"):
            mean, low, high = mean_interval([record[name] for record in confirmed])
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def _setting(record: Record) -> str:
    """What a member and the trials that confirm it share."""
    return effective(trial_of(record).model_copy(update={"seed": 0, "test": False})).model_dump_json()
