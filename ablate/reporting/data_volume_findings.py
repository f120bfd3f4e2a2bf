"""How the volume of training data changes the error of each arm, and the gap between the arms."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ablate.analysis import hypothesis, paired, verdict_rules
from ablate.analysis.verdict import DataVolume
from ablate.reporting.arm_trials import ArmTrials, finding_of_trials, recipes_of
from ablate.reporting.run_results import Finding, RunResults


def volume(results: RunResults) -> Finding:
    """Whether too little data explains the gap of each arm to the full-precision arm of its recipe."""
    return finding_of_trials(results, "Is the data to blame?", _volume)


def _volume(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    by_arm = judged(results, trials)
    sentence = " ".join(result.sentence for result in by_arm.values())
    tables = {**verdict_tables(by_arm), "bought": _bought(trials.records), "paired": trials.records}
    return Finding(title, sentence, verdict_notes(by_arm.items()), tables)


def judged(results: RunResults, trials: ArmTrials, questions: int = 1) -> dict[str, DataVolume]:
    """The verdict on the gap of each arm over the volume of data.

    Args:
        results: Of a run.
        trials: The paired trials, and the arms by their baseline.
        questions: How often each family is judged, as at each length of a grid. The intervals of a family
            hold together over all, because each family asks about recipes of its own.

    Returns:
        By arm.
    """
    study, records, recipes = results.run.study, trials.records, recipes_of(results.run.study)
    options: dict[str, Any] = {
        "margin": study.gap_margin,
        "slope_margin": study.slope_margin,
        "relative_margin": study.relative_margin,
        "chance": 1 / len(results.classes),
        "correctness": _correctness(results, records) or None,
        "questions": questions,
    }
    by_arm: dict[str, DataVolume] = {}
    for baseline, arms in trials.families.items():
        other = [arm for arm in arms if recipes.get(arm) != recipes.get(baseline)]
        by_arm.update(
            hypothesis.data_volume_all(records, arms=arms, baseline=baseline, other_recipe=other, **options)
        )
    return by_arm


def verdict_tables(by_arm: dict[str, DataVolume]) -> dict[str, pd.DataFrame]:
    """The tables of the verdicts: verdicts, changes, gaps, needed, scales."""
    parts = ("changes", "gaps", "needed", "scales")
    return {"verdicts": pd.DataFrame([_verdict(result) for result in by_arm.values()])} | {
        part: pd.concat([getattr(result, part).assign(arm=arm) for arm, result in by_arm.items()])
        for part in parts
    }


def verdict_notes(named: Iterable[tuple[str, DataVolume]]) -> tuple[str, ...]:
    """The rules of the verdicts, and what could not be judged under which name."""
    results = list(named)
    rules = dict.fromkeys(
        text for _, result in results for text in (result.rules.fixed, verdict_rules.VERDICTS, result.basis)
    )
    notes = dict.fromkeys(f"{name}: {note}" for name, result in results for note in result.notes)
    return (*rules, *notes)


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
    for name in ("first", "second", "whole", "bend", "gap"):
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
    column = "test_accuracy" if records["test_accuracy"].notna().any() else "accuracy"
    pairs = []
    for _, kind in records.groupby("weights", sort=False):
        before, *others = dict.fromkeys(kind["arm"])
        pairs += [(before, arm) for arm in others]
    return paired.crossing(records, pairs, column)
