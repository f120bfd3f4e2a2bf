"""Data or updates? The gap of each arm over a grid of both, and at the best length of each arm."""

import math
from dataclasses import replace

import pandas as pd

from ablate.analysis.grid_laws import GridLaws, grid_laws
from ablate.analysis.lengths import FACTOR, GAIN, at_best_length, best_lengths, effects, learning, surface
from ablate.analysis.verdict import DataVolume
from ablate.analysis.verdict_rules import NEAR_CHANCE, quoted
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.reporting.arm_trials import ArmTrials, finding_of_trials, recipes_of
from ablate.reporting.data_volume_findings import judged, verdict_notes, verdict_tables
from ablate.reporting.run_results import Finding, RunResults
from ablate.reporting.tuning_notes import tuning_notes

MIN_SIZES = 3  # at which an arm and its baseline have arrived, for a verdict at their best lengths
AXES = {"images": "ten times the images", "views": "ten times the updates"}


def grid(results: RunResults) -> Finding:
    """Whether the gap of each arm closes with more images, with more updates, or with neither."""
    return finding_of_trials(results, "Data or updates?", _grid, of_grid=True)


def _grid(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    paired, views = _measured(trials.records, results), _lengths(results)
    if paired.duplicated(["arm", "images", "views", "seed"]).any():
        return Finding(title, notes=("trials of different fractions have as many images",))
    lengths, slopes = best_lengths(_tuned(results), views), effects(paired, trials.families)
    sentences = slope_sentences(slopes, results.run.study)
    at_best: dict[str, DataVolume] = {}
    at_equal: dict[int, dict[str, DataVolume]] = {length: {} for length in views}
    for baseline, arms in trials.families.items():
        at_best |= _at_best_lengths(results, at_best_length(paired, lengths), lengths, baseline, arms)
        if rising := [arm for arm in arms if arm not in at_best]:
            for length, by_arm in at_equal.items():
                alike = ArmTrials(paired[paired["views"] == length], {baseline: arms})
                found = judged(results, alike, questions=len(views))
                by_arm |= {arm: _placed(found[arm], _at(length)) for arm in rising}
        sentences += [at_best[arm].sentence if arm in at_best else _at_lengths(arm, at_equal) for arm in arms]
    fitted = grid_laws(paired.assign(error=1 - paired["accuracy"]).query("error > 0"))
    sentences += _laws(fitted)
    tables = {
        "surface": surface(paired, trials.families),
        "effects": slopes,
        "lengths": lengths,
        "learning": learning(paired),
        **_verdict_tables([(math.nan, at_best), *at_equal.items()]),
        "laws": fitted.laws,
        "choices": fitted.choices,
        "paired": paired,
    }
    named = [*at_best.items()]
    named += [(f"{arm} {_at(length)}", of[arm]) for length, of in at_equal.items() for arm in of]
    assert results.design is not None  # its paired trials are above
    notes = (_censored(lengths), *_limits(results, tables), *verdict_notes(named), *fitted.notes)
    notes += tuning_notes(results.design)
    return Finding(title, " ".join(filter(None, sentences)), tuple(filter(None, notes)), tables)


def at_best_lengths(finding: Finding) -> Finding:
    """The finding with the gaps at best lengths alone; those at equal ones are in the surface."""
    kept = {name: finding.tables[name] for name in ("gaps", "verdicts")}
    kept = {name: table[table["views"].isna()] for name, table in kept.items()}
    return replace(finding, tables={**finding.tables, **kept})


def _lengths(results: RunResults) -> list[int]:
    """The image views of the grid, the fewest first."""
    return sorted({int(views) for views in values(results.run.study.space.recipe["image_views"])})


def _measured(records: pd.DataFrame, results: RunResults) -> pd.DataFrame:
    """The paired trials with their length, `views`, and with the accuracy by which they are compared."""
    rows = records.merge(_views(results), on="trial_id")
    return rows.assign(accuracy=rows["test_accuracy"]).dropna(subset="accuracy")


def _views(results: RunResults) -> pd.DataFrame:
    """trial_id, views: the image views of each trial."""
    records = results.run.records.drop_duplicates("trial_id")
    views = records["spec"].map(lambda spec: spec["recipe"].get("image_views"))
    return records[["trial_id"]].assign(views=views).dropna().astype({"views": int})


def _tuned(results: RunResults) -> pd.DataFrame:
    """The complete trials on tuning seeds by what their cell chose: arm, images, views, seed, accuracy."""
    table, study = results.design, results.run.study
    assert table is not None  # it has paired trials
    fields = dict.fromkeys(
        field for tune in (study.tune, *(step.tune for step in study.steps)) for field in tune
    )
    key = ["cell", *(field for field in fields if field in table)]
    chosen = table.loc[table["role"] == "seed", key].drop_duplicates()
    rows = table[(table["role"] == "tune") & (table["status"] == "complete")].merge(chosen, on=key)
    rows = rows.merge(_views(results), on="trial_id").assign(arm=rows["step"])
    return rows.astype({"images": int})[["arm", "images", "views", "seed", "accuracy"]]


def _at_best_lengths(
    results: RunResults, best: pd.DataFrame, lengths: pd.DataFrame, baseline: str, arms: list[str]
) -> dict[str, DataVolume]:
    """The verdicts on those arms of a family that have arrived, with their baseline, at enough sizes."""
    by_sizes: dict[tuple[int, ...], list[str]] = {}
    for arm in arms:
        by_sizes.setdefault(_arrived(lengths, [baseline, arm]), []).append(arm)
    found: dict[str, DataVolume] = {}
    for sizes, alike in by_sizes.items():
        if len(sizes) >= MIN_SIZES:
            trials = ArmTrials(best[best["images"].isin(sizes)], {baseline: arms})
            by_arm = judged(results, trials)
            found |= {arm: _placed(by_arm[arm], "at its best length") for arm in alike}
    return found


def _arrived(lengths: pd.DataFrame, arms: list[str]) -> tuple[int, ...]:
    """The sizes at which all arms have arrived."""
    counts = lengths[lengths["arm"].isin(arms) & ~lengths["censored"]].groupby("images").size()
    return tuple(counts.index[counts == len(arms)])


def _at(length: int) -> str:
    return f"at {length:,} image views"


def _at_lengths(arm: str, found: dict[int, dict[str, DataVolume]]) -> str:
    """The verdicts on an arm at equal lengths, in one sentence."""
    by_verdict: dict[str, list[str]] = {}
    for length, by_arm in found.items():
        by_verdict.setdefault(by_arm[arm].verdict, []).append(f"{length:,}")
    clauses = [f"{verdict} at {' and '.join(at)}" for verdict, at in by_verdict.items()]
    return f"{arm}: over images, compared at equal image views, its gap: {'; '.join(clauses)}."


def _placed(result: DataVolume, where: str) -> DataVolume:
    """The verdict with the length of its trials in its sentence."""
    text = result.sentence.removeprefix(f"{result.arm}: ")
    return replace(result, sentence=f"{result.arm} {where}: {text}")


def _verdict_tables(found: list[tuple[float, dict[str, DataVolume]]]) -> dict[str, pd.DataFrame]:
    """The tables of the verdicts with their length, `views`: NaN at the best lengths."""
    tables = [
        {name: table.assign(views=views) for name, table in verdict_tables(by_arm).items()}
        for views, by_arm in found
        if by_arm
    ]
    return {name: pd.concat([each[name] for each in tables], ignore_index=True) for name in tables[0]}


def slope_sentences(effects: pd.DataFrame, study: StudySpec) -> list[str]:
    """What ten times the images, and ten times the updates, change in the gap of each arm, if it is known."""
    sentences, recipes = [], recipes_of(study)
    for arm, rows in effects.dropna(subset="low").groupby("arm", sort=False):
        changes = [
            f"{AXES[row['axis']]} by {_points(row['per_decade'], row['low'], row['high'])}"
            for _, row in rows.iterrows()
        ]
        baseline = rows["baseline"].iloc[0]
        the_gap = f"its gap to {quoted(baseline)}"
        if recipes.get(str(arm)) != recipes.get(baseline):
            the_gap += ", in recipe and quantization together,"
        told = f"on average over the grid {the_gap} changes with {' and with '.join(changes)}"
        sentences.append(f"{arm}: {told}.")
    return sentences


def _laws(fitted: GridLaws) -> list[str]:
    """The law of each arm that the trials support."""
    if fitted.laws.empty:
        return []
    chosen = fitted.laws[fitted.laws["chosen"].astype(bool)].drop_duplicates("arm")
    return [
        f"{arm}: by the points, its error is {law}." for arm, law in chosen[["arm", "equation"]].to_numpy()
    ]


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+z.1f} points ({100 * low:+z.1f} to {100 * high:+z.1f})"


def _censored(lengths: pd.DataFrame) -> str:
    """Which arms may rise further, at which sizes; "" where none may."""
    clauses = []
    for arm, rows in lengths.groupby("arm", sort=False):
        sizes = [f"{size:,}" for size in rows.loc[rows["censored"], "images"]]
        where = "every size" if len(sizes) == len(rows) else f"{' and '.join(sizes)} images"
        clauses += [f"{arm} at {where}"] if sizes else []
    if not clauses:
        return ""
    gains = f"the last factor of {FACTOR} in length still gains {100 * GAIN:g} points or more"
    rule = f"{gains} on the tuning seeds, or what it gains is not known, for"
    return f"{rule} {'; '.join(clauses)}: no verdict at the best length rests on these"


def _limits(results: RunResults, tables: dict[str, pd.DataFrame]) -> list[str]:
    """What the slopes and the surface rest on."""
    slopes, cells = tables["effects"].dropna(subset="low"), tables["learning"]
    if slopes.empty:
        return []
    notes = ["intervals of the gap in each cell, and of its mean slopes, are over paired seeds alone"]
    arms = {*slopes["arm"], *slopes["baseline"]}
    near = cells[cells["arm"].isin(arms) & (cells["accuracy"] <= 1 / len(results.classes) + NEAR_CHANCE)]
    if len(near):
        named = "; ".join(
            f"{row.arm} at {row.images:,} images and {row.views:,} views" for row in near.itertuples()
        )
        notes.append(f"the mean slopes count cells near chance, where a gap has no room to be large: {named}")
    every = len(_lengths(results)) * len(values(results.run.study.space.fraction))
    for row in slopes[slopes["cells"] < every].drop_duplicates("arm").itertuples():
        notes.append(f"the mean slopes of {row.arm} rest on {row.cells} of {every} cells")
    return notes
