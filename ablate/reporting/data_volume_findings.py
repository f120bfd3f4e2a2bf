"""How the volume of training data changes the error of each arm, and the gap between the arms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.analysis import hypothesis, paired, verdict_rules
from ablate.analysis.curves import curves
from ablate.analysis.verdict import DataVolume
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.reporting.run_results import Finding, RunResults

MIN_SIZES = 3  # of the training set, below which a trend cannot be told


class NotApplicable(Exception):
    """The run has no trend over data to test; the message is the reason."""


@dataclass(frozen=True)
class ArmTrials:
    """The trials that a trend over data is measured on.

    Args:
        records: The design's complete paired trials; `arm` is the step, `weights` the kind of weights.
        families: The quantized arms by their baseline. The baseline of an arm is the full-precision arm whose
            step has the same recipe, else the first full-precision arm.
    """

    records: pd.DataFrame
    families: dict[str, list[str]]


def volume(results: RunResults) -> Finding:
    """Whether too little data explains the gap of each arm to the full-precision arm of its recipe."""
    return _finding(results, "Is the data to blame?", _volume)


def scaling(results: RunResults) -> Finding:
    """Which law error follows in the volume of data."""
    return _finding(results, "How does error fall with data?", _scaling)


def _finding(
    results: RunResults, title: str, answer: Callable[[RunResults, str, ArmTrials], Finding]
) -> Finding:
    try:
        trials = _arm_trials(results)
    except NotApplicable as reason:
        study = results.run.study
        asks_for_a_trend = bool(study.design) and len(values(study.space.fraction)) >= MIN_SIZES
        return Finding(title, notes=(str(reason),), applies=asks_for_a_trend)
    return answer(results, title, trials)


def _arm_trials(results: RunResults) -> ArmTrials:
    """Raises NotApplicable where there are too few trials, sizes or arms."""
    if not results.run.study.design:
        reason = "a search's trials differ in more than their data"
        raise NotApplicable(f"{reason}; run a study with a design over `fraction`")
    if (table := results.design) is None:
        raise NotApplicable("no trial is recorded")
    rows = table[(table["role"] == "seed") & (table["status"] == "complete")].reset_index(drop=True)
    rows = rows.astype({"images": int})  # pandas makes floats of them where a trial has not ended
    step, weights = rows["step"], rows["arm"]
    rows = rows.assign(arm=step.where(step != "", weights), weights=weights).drop_duplicates("trial_id")
    if not results.classes:
        raise NotApplicable("no paired trial has ended yet")
    if (sizes := rows["images"].nunique()) < MIN_SIZES:
        number = f"is {sizes or 'none'}" if sizes < 2 else f"are {sizes}"
        rule = f"a trend over data needs {MIN_SIZES} sizes of the training set or more"
        raise NotApplicable(f"{rule}, but there {number}")
    return ArmTrials(rows, _families(rows, _recipes(results.run.study)))


def _families(rows: pd.DataFrame, recipes: dict[str, Any]) -> dict[str, list[str]]:
    """The quantized arms by their baseline, in the order of the baselines.

    Raises NotApplicable where there is no pair."""
    full = list(dict.fromkeys(rows.loc[rows["weights"] == "full", "arm"]))
    if not full:
        raise NotApplicable("a gap needs an arm whose weights are all full, and there is none")
    families: dict[str, list[str]] = {}
    for arm in dict.fromkeys(rows["arm"]):
        if arm not in full:
            baseline = next((name for name in full if recipes.get(name) == recipes.get(arm)), full[0])
            families.setdefault(baseline, []).append(arm)
    if not families:
        raise NotApplicable(f"a gap needs an arm beside {full[0]}, and there is none")
    return dict(sorted(families.items(), key=lambda item: full.index(item[0])))


def _recipes(study: StudySpec) -> dict[str, Any]:
    """What each arm changes of the study's recipe."""
    steps = [*study.steps, *([study.reference] if study.reference else [])]
    return {f"only: {step.name}": step.recipe for step in study.steps} | {
        step.name: step.recipe for step in steps
    }


def _volume(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    study, records, recipes = results.run.study, trials.records, _recipes(results.run.study)
    options: dict[str, Any] = {
        "margin": study.gap_margin,
        "slope_margin": study.slope_margin,
        "relative_margin": study.relative_margin,
        "chance": 1 / len(results.classes),
        "correctness": _correctness(results, records) or None,
    }
    by_arm: dict[str, DataVolume] = {}
    # Intervals hold together within a family, because each family asks about recipes of its own.
    for baseline, arms in trials.families.items():
        other = [arm for arm in arms if recipes.get(arm) != recipes.get(baseline)]
        by_arm.update(
            hypothesis.data_volume_all(records, arms=arms, baseline=baseline, other_recipe=other, **options)
        )
    tables = {
        "verdicts": pd.DataFrame([_verdict(result) for result in by_arm.values()]),
        "changes": pd.concat([result.changes.assign(arm=arm) for arm, result in by_arm.items()]),
        "gaps": pd.concat([result.gaps.assign(arm=arm) for arm, result in by_arm.items()]),
        "needed": pd.concat([result.needed.assign(arm=arm) for arm, result in by_arm.items()]),
        "scales": pd.concat([result.scales.assign(arm=arm) for arm, result in by_arm.items()]),
        "bought": _bought(records),
        "paired": records,
    }
    sentence = " ".join(result.sentence for result in by_arm.values())
    rules = dict.fromkeys(
        text
        for result in by_arm.values()
        for text in (result.rules.fixed, verdict_rules.VERDICTS, result.basis)
    )
    notes = dict.fromkeys(f"{arm}: {note}" for arm, result in by_arm.items() for note in result.notes)
    return Finding(title, sentence, (*rules, *notes), tables)


def _correctness(results: RunResults, records: pd.DataFrame) -> dict[tuple[str, Any, int], Any]:
    """Which test images each trial got right, by arm, seed and images; {} where one trial's are not known."""
    correct = {}
    for row in records.itertuples():
        predictions = results.predicted(str(row.trial_id), "test")
        if predictions is None:
            return {}
        logits, labels = predictions  # (N, classes), (N,)
        correct[str(row.arm), row.seed, int(str(row.images))] = logits.argmax(axis=1) == labels
    return correct


def _verdict(result: DataVolume) -> dict[str, Any]:
    """The row of one arm in verdicts.csv."""
    rules, contrasts = result.rules, result.by_contrast
    estimates: dict[str, Any] = {}
    for name in ("first", "second", "whole", "gap"):
        row = contrasts.loc[name] if name in contrasts.index else None
        for end, column in (("", "value"), ("_low", "low"), ("_high", "high"), ("_smallest", "smallest")):
            estimates[name + end] = None if row is None else row[column]
    return {
        "arm": result.arm,
        "verdict": result.verdict,
        "baseline": rules.baseline,
        "same_recipe": result.arm not in rules.other_recipe,
        "seeds": result.seeds,
        "margin": rules.margin,
        "intervals": rules.intervals,
        **estimates,
        "sentence": result.sentence,
    }


def _bought(records: pd.DataFrame) -> pd.DataFrame:
    """What data and recipe buy, for arms of equal weights: each against the first of its kind."""
    column = "test_accuracy" if records["test_accuracy"].notna().all() else "accuracy"
    pairs = []
    for _, kind in records.groupby("weights", sort=False):
        before, *others = dict.fromkeys(kind["arm"])
        pairs += [(before, arm) for arm in others]
    return paired.crossing(records, pairs, column)


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
