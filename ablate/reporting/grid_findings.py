"""Data or updates? The gap of each arm over a grid of both, and at the best length of each arm."""

from dataclasses import replace

import pandas as pd

from ablate.analysis.grid_laws import GridLaws, grid_laws
from ablate.analysis.lengths import GAIN, at_best_length, best_lengths, effects, learning, surface
from ablate.analysis.verdict import DataVolume
from ablate.analysis.verdict_rules import quoted
from ablate.reporting.arm_trials import ArmTrials, finding_of_trials
from ablate.reporting.data_volume_findings import judged, verdict_notes, verdict_tables
from ablate.reporting.run_results import Finding, RunResults
from ablate.reporting.tuning_notes import tuning_notes

MIN_SIZES = 3  # at which an arm and its baseline have arrived, for a verdict at their best lengths
AXES = {"images": "ten times the images", "views": "ten times the updates"}


def grid(results: RunResults) -> Finding:
    """Whether the gap of each arm closes with more images, with more updates, or with neither."""
    return finding_of_trials(results, "Data or updates?", _grid, of_grid=True)


def _grid(results: RunResults, title: str, trials: ArmTrials) -> Finding:
    paired = _measured(trials.records, results)
    lengths, slopes = best_lengths(_tuned(results), GAIN), effects(paired, trials.families)
    verdicts: dict[str, DataVolume] = {}
    sentences = slope_sentences(slopes)
    for baseline, arms in trials.families.items():
        family = {baseline: arms}
        if kept := _arrived(lengths, [baseline, *arms]):
            best = at_best_length(paired, lengths)
            found = judged(results, ArmTrials(best[best["images"].isin(kept)], family))
            verdicts |= {arm: _named(result, arm, "at its best length") for arm, result in found.items()}
            sentences += [verdicts[arm].sentence for arm in arms]
        else:
            by_arm = _at_equal_lengths(results, paired, family)
            verdicts |= {result.arm: result for found in by_arm.values() for result in found.values()}
            sentences += [_at_lengths(arm, by_arm[arm]) for arm in arms]
    fitted = grid_laws(paired.assign(error=1 - paired["accuracy"]).query("error > 0"))
    sentences += _laws(fitted)
    tables = {
        "surface": surface(paired, trials.families),
        "effects": slopes,
        "lengths": lengths,
        "learning": learning(paired),
        **verdict_tables(verdicts),
        "laws": fitted.laws,
        "choices": fitted.choices,
        "paired": paired,
    }
    assert results.design is not None  # its paired trials are above
    notes = (_censored(lengths), *verdict_notes(verdicts), *fitted.notes, *tuning_notes(results.design))
    return Finding(title, " ".join(filter(None, sentences)), tuple(filter(None, notes)), tables)


def at_best_lengths(finding: Finding) -> Finding:
    """The finding with the gaps at best lengths alone; those at equal ones are in the surface."""
    arms = finding.tables["surface"]["arm"].unique()
    kept = {name: finding.tables[name] for name in ("gaps", "verdicts")}
    kept = {name: table[table["arm"].isin(arms)] for name, table in kept.items()}
    return replace(finding, tables={**finding.tables, **kept})


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


def _arrived(lengths: pd.DataFrame, arms: list[str]) -> list[int]:
    """The sizes at which all arms have arrived; none where there are too few for a verdict."""
    of_family = lengths[lengths["arm"].isin(arms)]
    arrived = {*of_family["images"]} - {*of_family.loc[of_family["censored"], "images"]}
    return sorted(arrived) if len(arrived) >= MIN_SIZES else []


def _at_equal_lengths(
    results: RunResults, paired: pd.DataFrame, family: dict[str, list[str]]
) -> dict[str, dict[int, DataVolume]]:
    """The verdicts on a family at each length, by arm and length."""
    found: dict[str, dict[int, DataVolume]] = {arm: {} for arms in family.values() for arm in arms}
    all_views = sorted(paired["views"].unique())
    for views in all_views:
        trials = ArmTrials(paired[paired["views"] == views], family)
        for arm, result in judged(results, trials, questions=len(all_views)).items():
            where = f"{views:,} image views"
            found[arm][views] = _named(result, f"{arm}, {where}", f"at {where}")
    return found


def _at_lengths(arm: str, verdicts: dict[int, DataVolume]) -> str:
    """The verdicts on an arm at equal lengths, in one sentence."""
    by_verdict: dict[str, list[str]] = {}
    for views, result in verdicts.items():
        by_verdict.setdefault(result.verdict, []).append(f"{views:,}")
    clauses = [f"{verdict} at {' and '.join(at)}" for verdict, at in by_verdict.items()]
    return f"{arm}: over images, compared at equal image views, its gap: {'; '.join(clauses)}."


def _laws(fitted: GridLaws) -> list[str]:
    """The law of each arm that the trials support."""
    if fitted.laws.empty:
        return []
    chosen = fitted.laws[fitted.laws["chosen"].astype(bool)].drop_duplicates("arm")
    return [
        f"{arm}: by the points, its error is {law}." for arm, law in chosen[["arm", "equation"]].to_numpy()
    ]


def _named(result: DataVolume, name: str, where: str) -> DataVolume:
    """The verdict under another name, with the length of its trials in its sentence."""
    text = result.sentence.removeprefix(f"{result.arm}: ")
    other = (name,) if result.arm in result.rules.other_recipe else ()
    rules = replace(result.rules, other_recipe=other)
    return replace(result, arm=name, rules=rules, sentence=f"{result.arm} {where}: {text}")


def slope_sentences(effects: pd.DataFrame) -> list[str]:
    """What ten times the images, and ten times the updates, change in the gap of each arm, if it is known."""
    sentences = []
    for arm, rows in effects.dropna(subset="low").groupby("arm", sort=False):
        changes = [
            f"{AXES[row['axis']]} by {_points(row['per_decade'], row['low'], row['high'])}"
            for _, row in rows.iterrows()
        ]
        gap = f"on average over the grid its gap to {quoted(rows['baseline'].iloc[0])}"
        sentences.append(f"{arm}: {gap} changes with {' and with '.join(changes)}.")
    return sentences


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
    rule = f"the longest training still gains {100 * GAIN:g} points or more on the tuning seeds"
    return f"{rule} for {'; '.join(clauses)}: no verdict at the best length rests on these"
