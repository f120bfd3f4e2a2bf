"""The trials that a trend over data is measured on, and which arm is held against which baseline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.reporting.run_results import Finding, RunResults

MIN_SIZES = 3  # of the training set, below which a trend cannot be told


class _NotApplicable(Exception):
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


def finding_of_trials(
    results: RunResults,
    title: str,
    answer: Callable[[RunResults, str, ArmTrials], Finding],
    *,
    of_grid: bool = False,
) -> Finding:
    """The finding that a question about a trend over data has.

    Args:
        results: Of a run.
        title: The question.
        answer: Makes the finding from the results, the title and the trials.
        of_grid: Whether the question is asked of a grid of data and updates, or of all other designs.

    Returns:
        The answer; without a sentence, and with a note that says why, where there are too few trials, sizes
        or arms.
    """
    study = results.run.study
    if of_grid != ("grid" in study.design):
        reason = "a grid varies the length of trials as well" if not of_grid else "the study has no grid"
        return Finding(title, notes=(reason,), applies=False)
    try:
        trials = _arm_trials(results)
    except _NotApplicable as reason:
        asks_for_a_trend = bool(study.design) and len(values(study.space.fraction)) >= MIN_SIZES
        return Finding(title, notes=(str(reason),), applies=of_grid or asks_for_a_trend)
    return answer(results, title, trials)


def _arm_trials(results: RunResults) -> ArmTrials:
    """Raises _NotApplicable where there are too few trials, sizes or arms."""
    if not results.run.study.design:
        reason = "a search's trials differ in more than their data"
        raise _NotApplicable(f"{reason}; run a study with a design over `fraction`")
    if (table := results.design) is None:
        raise _NotApplicable("no trial is recorded")
    rows = table[(table["role"] == "seed") & (table["status"] == "complete")].reset_index(drop=True)
    rows = rows.astype(
        {"images": int, "seed": int}
    )  # pandas makes floats of them where a trial has not ended
    step, weights = rows["step"], rows["arm"]
    rows = rows.assign(arm=step.where(step != "", weights), weights=weights).drop_duplicates("trial_id")
    if not results.classes:
        raise _NotApplicable("no paired trial has ended yet")
    if (sizes := rows["images"].nunique()) < MIN_SIZES and "grid" not in results.run.study.design:
        number = f"is {sizes or 'none'}" if sizes < 2 else f"are {sizes}"
        rule = f"a trend over data needs {MIN_SIZES} sizes of the training set or more"
        raise _NotApplicable(f"{rule}, but there {number}")
    return ArmTrials(rows, _families(rows, recipes_of(results.run.study)))


def _families(rows: pd.DataFrame, recipes: dict[str, Any]) -> dict[str, list[str]]:
    """The quantized arms by their baseline, in the order of the baselines.

    Raises _NotApplicable where there is no pair."""
    full = list(dict.fromkeys(rows.loc[rows["weights"] == "full", "arm"]))
    if not full:
        raise _NotApplicable("a gap needs an arm whose weights are all full, and there is none")
    families: dict[str, list[str]] = {}
    for arm in dict.fromkeys(rows["arm"]):
        if arm not in full:
            baseline = next((name for name in full if recipes.get(name) == recipes.get(arm)), full[0])
            families.setdefault(baseline, []).append(arm)
    if not families:
        raise _NotApplicable(f"a gap needs an arm beside {full[0]}, and there is none")
    return dict(sorted(families.items(), key=lambda item: full.index(item[0])))


def recipes_of(study: StudySpec) -> dict[str, Any]:
    """What each arm changes of the study's recipe.

    Args:
        study: A study with a design.

    Returns:
        The changes by the arm's name.
    """
    steps = [*study.steps, *([study.reference] if study.reference else [])]
    return {f"only: {step.name}": step.recipe for step in study.steps} | {
        step.name: step.recipe for step in steps
    }
