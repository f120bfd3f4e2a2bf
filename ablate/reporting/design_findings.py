"""What a designed study shows: the ladder rung by rung, and how the gap between arms depends on the volume of data."""

from typing import Any

import pandas as pd

from ablate.analysis import hypothesis, paired, verdict_rules
from ablate.analysis.curves import curves
from ablate.analysis.sensitivity import sensitivities
from ablate.analysis.t_interval import mean_interval
from ablate.analysis.verdict import DataVolume
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.reporting.run_results import Finding, Seen

SIZES = 3  # of training sets, from which on a curve can be told


def cells(seen: Seen) -> Finding:
    """What each cell of the design reached."""
    title, table = "What did each cell reach?", seen.design
    if table is None:
        return Finding(title, notes=("the study is a search, and has no design",), applies=False)
    if "sensitivity" in seen.run.study.design:
        return Finding(
            title,
            notes=("what its cells cost is said by layer group",),
            tables={"design": table},
            applies=False,
        )
    column = "test_accuracy" if table["test_accuracy"].notna().any() else "accuracy"
    seeds = paired.by_seed(table, column)
    found = pd.DataFrame(
        [(cell, int(seeds[cell].notna().sum()), *mean_interval(seeds[cell])) for cell in seeds],
        columns=["cell", "n", "mean", "low", "high"],
    )
    if found["mean"].isna().all():
        return Finding(title, "", ("no paired trial has ended yet",), {"design": table})
    best = found.loc[found["mean"].idxmax()]
    which = (
        f"The best of {len(found)} cells is {best['cell']}:" if len(found) > 1 else "The design has one cell:"
    )
    sentence = f"{which} {best['mean']:.1%} on {best['n']} seeds."
    return Finding(title, sentence, (), {"cells": found, "design": table})


def sensitivity(seen: Seen) -> Finding:
    """What each layer group costs, alone and left out alone."""
    title, table = "What does each layer group cost, one at a time?", seen.design
    if "sensitivity" not in seen.run.study.design:
        return Finding(title, notes=("the study does not take layer groups one at a time",), applies=False)
    if table is None or (costs := sensitivities(table)).dropna(subset="accuracy_cost").empty:
        return Finding(title, notes=("no two trials to hold against each other have ended yet",))
    said, groups = [], costs["group"].nunique() - 1
    for kind, rows in costs.dropna(subset="accuracy_cost").groupby("precision", sort=False):
        alone, whole = rows[rows["how"] == "alone"].sort_values("accuracy_cost"), rows[rows["how"] == "all"]
        parts = [f"{100 * whole['accuracy_cost'].iloc[0]:.1f} points in all"] if len(whole) else []
        if len(alone) > 1:
            least, most = (
                f"{row['group']} ({100 * row['accuracy_cost']:.1f})"
                for _, row in alone.iloc[[0, -1]].iterrows()
            )
            summed = (
                f"; the costs alone sum to {100 * alone['accuracy_cost'].sum():.1f}"
                if len(alone) == groups
                else ""
            )
            parts.append(f"alone most in {most} and least in {least}{summed}")
        said += [f"{str(kind).capitalize()} costs {', '.join(parts)}"] if parts else []
    notes = (
        ["with one seed no cost has an interval: noise alone may make it"] if costs["n"].max() == 1 else []
    )
    notes += (
        [f"{n} of {len(costs)} costs are not known yet"]
        if (n := int(costs["accuracy_cost"].isna().sum()))
        else []
    )
    return Finding(title, f"{'. '.join(said)}." if said else "", tuple(notes), {"sensitivity": costs})


def ladder(seen: Seen) -> Finding:
    """What each step is worth."""
    title, study, table = "What is each step worth?", seen.run.study, seen.design
    if table is None or "ladder" not in study.design:
        asked = "ladder" in study.design
        return Finding(
            title, notes=("no trial is recorded" if asked else "the study is no ladder",), applies=asked
        )
    if table["test_accuracy"].isna().all():
        return Finding(title, notes=("no paired trial has ended yet",))
    reference = study.reference.name if study.reference else None
    rungs = paired.ladder(table, [study.base, *(step.name for step in study.steps)], reference)
    known = rungs.dropna(subset="mean")
    steps = known[known["rung"] != reference]
    if steps.empty:
        return Finding(title, notes=("no rung has a paired trial yet",))
    first, last = steps.iloc[0], steps.iloc[-1]
    sentence = f"From {first['rung']} at {first['mean']:.1%} to {last['rung']} at {last['mean']:.1%}"
    if reference in set(known["rung"]):
        sentence += f"; {reference} reaches {known.set_index('rung').loc[reference, 'mean']:.1%}"
    if steps["gain"].notna().any():
        best = steps.loc[steps["gain"].idxmax()]
        sentence += f"; the largest step is {best['rung']} ({100 * best['gain']:+.1f} points)"
    seeds = paired.by_seed(table, "test_accuracy")
    alone = ("with one paired seed no gain has an interval: noise alone may make it",) * bool(
        rungs["n"].max() == 1
    )
    return Finding(title, f"{sentence}.", alone, {"ladder": rungs, "ladder_seeds": seeds.reset_index()})


def volume(seen: Seen) -> Finding:
    """Whether the volume of data is to blame for the gap between each arm and the full-precision one of its recipe."""
    title, study, (records, families, reason) = "Is the data to blame?", seen.run.study, _arms(seen)
    if reason:
        return Finding(title, notes=(reason,), applies=_asks_for_a_trend(seen))
    recipes = _recipes(study)
    options: dict[str, Any] = {
        "margin": study.gap_margin,
        "slope_margin": study.slope_margin,
        "chance": 1 / len(seen.classes),
    }
    options["correctness"] = _correctness(seen, records) or None
    found: dict[str, DataVolume] = {}
    for baseline, arms in families.items():  # by Holm within a family: each asks about recipes of its own
        other = [arm for arm in arms if recipes.get(arm) != recipes.get(baseline)]
        found |= hypothesis.data_volume_all(
            records, arms=arms, baseline=baseline, other_recipe=other, **options
        )
    tables = {
        "verdicts": pd.DataFrame([_verdict(result) for result in found.values()]),
        "gaps": pd.concat([result.gaps.assign(arm=arm) for arm, result in found.items()]),
        "needed": pd.concat([result.needed.assign(arm=arm) for arm, result in found.items()]),
        "scales": pd.concat([result.scales.assign(arm=arm) for arm, result in found.items()]),
        "bought": _bought(records),
        "paired": records,
    }
    sentence = " ".join(result.sentence for result in found.values())
    rules = dict.fromkeys(
        text
        for result in found.values()
        for text in (result.rules.fixed, verdict_rules.VERDICTS, result.basis)
    )
    notes = dict.fromkeys(f"{arm}: {note}" for arm, result in found.items() for note in result.notes)
    return Finding(title, sentence, (*rules, *notes), tables)


def scaling(seen: Seen) -> Finding:
    """Which law error follows in the volume of data."""
    title, (records, families, reason) = "How does error fall with data?", _arms(seen)
    if reason:
        return Finding(title, notes=(reason,), applies=_asks_for_a_trend(seen))
    tested = records["test_accuracy"].notna().all()
    points = records.assign(error=1 - records["test_accuracy" if tested else "accuracy"])
    worst = (
        1 - 1 / len(seen.classes) - verdict_rules.Rules.near_chance
    )  # as the test of the data volume leaves sizes out
    parts, notes = [], []
    for baseline, arms in families.items():
        full = points[points["arm"] == baseline].groupby("images")["error"].mean()
        kept = full.index[full < worst]
        if left := [f"{size:,}" for size in full.index.difference(kept)]:
            notes.append(f"left out: {' and '.join(left)} images, where {baseline} itself is near chance")
        parts.append(
            curves(points[points["images"].isin(kept) & (points["error"] > 0)], arms=arms, baseline=baseline)
        )
        notes += parts[-1].notes
    laws, bands, choices = (
        pd.concat([getattr(part, name) for part in parts]) for name in ("laws", "bands", "choices")
    )
    said = []
    for (law, equation), rows in (
        laws[laws["chosen"].astype(bool)].groupby(["law", "equation"], sort=False) if len(laws) else ()
    ):
        said.append(
            f"{law} ({equation}) for {', '.join(map(verdict_rules.quoted, dict.fromkeys(rows['arm'])))}"
        )
    sentence = f"By the points, the law is {'; '.join(said)}." if said else ""
    return Finding(
        title, sentence, tuple(notes), {"laws": laws, "bands": bands, "choices": choices, "points": points}
    )


def _asks_for_a_trend(seen: Seen) -> bool:
    study = seen.run.study
    return bool(study.design) and len(values(study.space.fraction)) >= SIZES


def _arms(seen: Seen) -> tuple[pd.DataFrame, dict[str, list[str]], str]:
    """The design's complete paired trials, with their step as `arm`; the quantized arms by their baseline; or why not.

    An arm's baseline is the full-precision one whose step has the same recipe, else the first one.
    """
    none, study = pd.DataFrame(), seen.run.study
    if not study.design:
        return (
            none,
            {},
            "a search's trials differ in more than their data; run a study with a design over `fraction`",
        )
    if (table := seen.design) is None:
        return none, {}, "no trial is recorded"
    rows = table[(table["role"] == "seed") & (table["status"] == "complete")].reset_index(drop=True)
    rows = rows.astype({"images": int})  # NaN where a trial has not ended makes floats of them
    kind = rows["arm"]
    rows = rows.assign(arm=rows["step"].where(rows["step"] != "", kind), weights=kind).drop_duplicates(
        "trial_id"
    )
    if not seen.classes:
        return none, {}, "no paired trial has ended yet"
    if (sizes := rows["images"].nunique()) < SIZES:
        there = f"is {sizes or 'none'}" if sizes < 2 else f"are {sizes}"
        return (
            none,
            {},
            f"a trend over data needs {SIZES} sizes of the training set or more, but there {there}",
        )
    full = list(dict.fromkeys(rows.loc[rows["weights"] == "full", "arm"]))
    if not full:
        return none, {}, "a gap needs an arm whose weights are all full, and there is none"
    recipes = _recipes(study)
    families: dict[str, list[str]] = {}
    for arm in dict.fromkeys(rows["arm"]):
        if arm not in full:
            baseline = next((name for name in full if recipes.get(name) == recipes.get(arm)), full[0])
            families.setdefault(baseline, []).append(arm)
    if not families:
        return none, {}, f"a gap needs an arm beside {full[0]}, and there is none"
    return rows, dict(sorted(families.items(), key=lambda item: full.index(item[0]))), ""


def _recipes(study: StudySpec) -> dict[str, Any]:
    """What each arm changes of the study's recipe."""
    alone = {f"only: {step.name}": step.recipe for step in study.steps}
    return alone | {
        step.name: step.recipe for step in (*study.steps, *([study.reference] if study.reference else []))
    }


def _correctness(seen: Seen, records: pd.DataFrame) -> dict[tuple[str, Any, int], Any]:
    """Which test images each trial got right, where all of them are known."""
    found = {}
    for row in records.itertuples():
        predicted = seen.predicted(str(row.trial_id), "test")
        if predicted is None:
            return {}
        found[str(row.arm), row.seed, int(str(row.images))] = predicted[0].argmax(axis=1) == predicted[1]
    return found


def _verdict(found: DataVolume) -> dict[str, Any]:
    rules = found.rules
    row: dict[str, Any] = {"arm": found.arm, "verdict": found.verdict, "baseline": rules.baseline}
    row |= {"same_recipe": found.arm not in rules.other_recipe, "seeds": found.seeds, "margin": rules.margin}
    for name, value in (("slope", found.slope), ("gap", found.gap), ("mixed", found.mixed)):
        row |= dict(
            zip((name, f"{name}_low", f"{name}_high"), value[:3] if value else (None,) * 3, strict=True)
        )
    row |= {f"p_{test}": p for test, p in found.tests["holm"].items()}
    row["mixed_random"] = found.mixed_random
    return row | {"smallest_slope": found.smallest_slope, "sentence": found.sentence}


def _bought(records: pd.DataFrame) -> pd.DataFrame:
    """What data and recipe buy, for arms of equal weights: each against the first of its kind."""
    column = "test_accuracy" if records["test_accuracy"].notna().all() else "accuracy"
    found = []
    for _, kind in records.groupby("weights", sort=False):
        before, *others = dict.fromkeys(kind["arm"])
        found += [paired.crossing(kind, before, arm, column).assign(arm=before) for arm in others]
    return pd.concat(found) if found else pd.DataFrame()
