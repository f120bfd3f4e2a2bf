"""Which law the error of each arm follows in the volume of training data, and which one the gaps follow."""

import pandas as pd

from ablate.analysis import verdict_rules
from ablate.analysis.curves import curves
from ablate.reporting.arm_trials import ArmTrials, finding_of_trials
from ablate.reporting.run_results import Finding, RunResults


def scaling(results: RunResults) -> Finding:
    """Which law error follows in the volume of data."""
    return finding_of_trials(results, "How does error fall with data?", _scaling)


def _scaling(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    records = trials.records
    tested = records["test_accuracy"].notna().all()
    points = records.assign(error=1 - records["test_accuracy" if tested else "accuracy"])
    # The test of the data volume leaves out the same sizes.
    worst = 1 - 1 / len(results.classes) - verdict_rules.Rules.near_chance
    families, notes = [], []
    for baseline, arms in trials.families.items():
        full = points[points["arm"] == baseline].groupby("images")["error"].mean()
        kept = full.index[full < worst]
        if left_out := [f"{size:,}" for size in full.index.difference(kept)]:
            images = " and ".join(left_out)
            notes.append(f"left out: {images} images, where {baseline} itself is near chance")
        usable = points[points["images"].isin(kept) & (points["error"] > 0)]
        families.append(curves(usable, arms=arms, baseline=baseline))
        notes += families[-1].notes
    tables = {
        name: pd.concat([getattr(family, name) for family in families])
        for name in ("laws", "bands", "choices")
    }
    return Finding(title, _laws_sentence(tables["laws"]), tuple(notes), {**tables, "points": points})


def _laws_sentence(laws: pd.DataFrame) -> str:
    if laws.empty:
        return ""
    clauses = []
    chosen = laws[laws["chosen"].astype(bool)].groupby(["law", "equation"], sort=False)
    for (law, equation), rows in chosen:
        arms = ", ".join(map(verdict_rules.quoted, dict.fromkeys(rows["arm"])))
        clauses.append(f"{law} ({equation}) for {arms}")
    return f"By the points, the law is {'; '.join(clauses)}." if clauses else ""
