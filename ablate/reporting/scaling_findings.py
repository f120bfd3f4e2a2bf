"""Which law the error of each arm follows in the volume of training data, and which one the gaps follow."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ablate.analysis import verdict_rules
from ablate.analysis.choice import rejection
from ablate.analysis.curves import UNIQUE, curves
from ablate.reporting.arm_trials import ArmTrials, finding_of_trials
from ablate.reporting.run_results import Finding, RunResults

MIN_SEEDS = 3  # below which the test of lack of fit has hardly any power


def scaling(results: RunResults) -> Finding:
    """Which law error follows in the volume of data."""
    return finding_of_trials(results, "How does error fall with data?", _scaling)


def _scaling(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    points, notes = _points(trials.records)
    points = points.merge(_lengths(results.run.records), on="trial_id", how="left")
    # The test of the data volume leaves out the same sizes.
    worst = 1 - 1 / len(results.classes) - verdict_rules.Rules.near_chance
    families, seeds = [], dict[str, int]()
    for baseline, arms in trials.families.items():
        usable = _above_chance(points, baseline, arms, worst, notes)
        seeds |= _seeds(usable, baseline, arms)
        families.append(curves(usable, arms=arms, baseline=baseline))
        notes += families[-1].notes
    tables = {
        name: pd.concat([getattr(family, name) for family in families])
        for name in ("laws", "bands", "choices")
    }
    sentence = _sentence(tables["laws"], seeds)
    return Finding(title, sentence, tuple(dict.fromkeys(notes)), {**tables, "points": points})


def _points(records: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The trials with their test errors, and notes; with validation errors where no trial was tested."""
    column = "test_accuracy" if records["test_accuracy"].notna().any() else "accuracy"
    points = records.assign(error=1 - records[column]).dropna(subset="error")
    notes = []
    if missing := len(records) - len(points):
        notes.append(
            f"left out: {missing} of {len(records)} trials, which have no {column.replace('_', ' ')}"
        )
    if column == "accuracy":
        notes.append("no trial has a test accuracy: errors are those on the validation images")
    return points, notes


def _lengths(records: pd.DataFrame) -> pd.DataFrame:
    """How long each trial was trained: trial_id, steps, processed, full_epochs, as `curves` needs them."""
    recipes = records["spec"].map(lambda spec: spec["recipe"])
    images, steps = (records[name].astype(float) for name in ("images", "steps"))
    batch = recipes.map(lambda recipe: recipe.get("batch_size")).astype(float)
    # An epoch's last batch is smaller; a last image of its own joins the batch before it (`optim.steps_of`).
    per_epoch = np.maximum(1, np.ceil((images - 1) / batch))
    lengths = {
        "steps": steps,
        "processed": steps / per_epoch * images,
        "full_epochs": recipes.map(lambda recipe: recipe.get("full_epochs", 0)),
    }
    return records[["trial_id"]].assign(**lengths).drop_duplicates("trial_id")


def _above_chance(
    points: pd.DataFrame, baseline: str, arms: list[str], worst: float, notes: list[str]
) -> pd.DataFrame:
    """The family's points without the sizes at which the baseline, or the arm itself, is near chance."""
    points = points[points["arm"].isin([baseline, *arms])]
    error = points.groupby(["arm", "images"], sort=False)["error"].transform("mean")
    chance = points[error >= worst]
    lost = chance.loc[chance["arm"] == baseline, "images"].unique()
    if len(lost):
        notes.append(f"left out: {_sizes(lost)} images, where {baseline} itself is near chance")
    for arm, rows in chance[~chance["images"].isin(lost)].groupby("arm", sort=False):
        notes.append(f"{arm}: left out at {_sizes(rows['images'])} images, where it is near chance")
    kept = points[(error < worst) & ~points["images"].isin(lost)]
    if perfect := int((kept["error"] == 0).sum()):
        notes.append(f"left out: {perfect} trials without an error, which has no logarithm")
    return kept[kept["error"] > 0]


def _sizes(images: Iterable[int]) -> str:
    return " and ".join(f"{size:,}" for size in sorted(set(images)))


def _seeds(points: pd.DataFrame, baseline: str, arms: list[str]) -> dict[str, int]:
    """The number of seeds of each arm, and of each pair of arm and baseline: that of the fewer."""
    seeds = points.groupby("arm")["seed"].nunique().to_dict()
    pairs = {f"{arm} and {baseline}": min(seeds.get(arm, 0), seeds.get(baseline, 0)) for arm in arms}
    return {**seeds, **pairs}


def _doubt(p: float, seeds: int) -> str:
    """What the test of lack of fit cannot say of a law that it does not reject; "" where it has power."""
    if seeds == 1:
        return "with one seed its fit is not tested"
    if np.isnan(p):
        return "its fit is not tested"
    return "with two seeds its lack of fit is hardly tested" if seeds < MIN_SEEDS else ""


def _sentence(laws: pd.DataFrame, seeds: dict[str, int]) -> str:
    """The laws in unique images that the points support, and those that lack of fit rejects.

    seeds: how many an arm, or a pair of arms, has.
    """
    if laws.empty:
        return ""
    laws = laws[(laws["data"] == UNIQUE) & (laws["law"] != "multiplier")].drop_duplicates(["arm", "law"])
    chosen = laws[laws["chosen"].astype(bool)]
    doubts = [_doubt(p, seeds[arm]) for arm, p in zip(chosen["arm"], chosen["p"], strict=True)]
    sentences = []
    for doubt, alike in chosen.groupby(np.array(doubts, dtype=object), sort=False):
        clauses = []
        for (law, equation), rows in alike.groupby(["law", "equation"], sort=False):
            arms = ", ".join(map(verdict_rules.quoted, rows["arm"]))
            clauses.append(f"{law} ({equation}) for {arms}")
        start = "the closest law is" if doubt else "the law is"
        sentences.append(f"By the points, {'; '.join([f'{start} {clauses[0]}', *clauses[1:]])}")
        sentences[-1] += f"; {doubt}." if doubt else "."
    for law, rows in laws[laws["rejected"].astype(bool)].groupby("law", sort=False):
        arms = ", ".join(map(verdict_rules.quoted, rows["arm"]))
        tests = rejection(rows.iloc[0]) if len(rows) == 1 else f"p at most {rows['p_holm'].max():.2g}"
        closest = f"the closest, {law}, is rejected by lack of fit ({tests}, adjusted by Holm)"
        sentences.append(f"No law fits {arms}: {closest}.")
    return " ".join(sentences)
