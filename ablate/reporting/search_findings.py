"""What the trials of a run show, whichever way they were chosen: the front, how it grew, what matters, what goes wrong."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ablate.analysis import importance, layer_effects, pareto
from ablate.analysis.confusion import changed, confusions, differences, examples, repeated
from ablate.analysis.front_uncertainty import front_probability
from ablate.analysis.hypervolume import hypervolume_over_trials, reference_point
from ablate.config.objectives import COLUMNS, SIGN, TABLE, cell
from ablate.formatting import in_bounds, in_words
from ablate.reporting import confirmation_table
from ablate.reporting.run_results import Finding, Seen

DOUBT = 3.0  # standard errors of the accuracy: a trial further below the front is not on it by chance
TOGETHER = "the cells of the design are held against each other; over all of its trials, what changes together is not told apart"
MOST = 5000  # trials whose predictions are read
CLASSES = 50  # whose pairs are tested one by one


def front(seen: Seen) -> Finding:
    """The Pareto front, its knee, and how sure each trial's place on it is."""
    title, study = "Which trials does no other beat?", seen.run.study
    if not len(seen.points):
        bounds = f" and {in_bounds(study.within)}" if study.within else ""
        return Finding(title, notes=(f"there is no complete trial with every objective{bounds}",))
    names, trials = list(study.objectives), seen.complete
    on = pareto.front(seen.points, seen.directions)
    first_two = pareto.front(seen.points[:, :2], seen.directions[:2])
    chance, notes = _chance(seen)
    knee = pareto.knee(seen.points, seen.directions)
    table = trials[["trial_id", "arm", "seed", "fraction", *dict.fromkeys(["accuracy", *names])]].assign(
        layers=[in_words(spec) for spec in trials["spec"]],
        front=trials.index.isin(on),
        stairs=trials.index.isin(first_two),
        knee=trials.index == knee,
        front_probability=chance,
        label=_labels(trials),
    )
    chosen = pareto.front_of(trials, study.directions)
    best = trials.loc[chosen.index[0]]
    sentence = f"{len(on)} of {len(trials)} complete trials are on the front over {', '.join(names)}"
    if knee is not None:
        sentence += f"; its knee is {trials.loc[knee, 'trial_id']} ({in_words(trials.loc[knee, 'spec'])})"
    alike = [name for name, span in zip(names, np.ptp(seen.points, axis=0), strict=True) if span == 0]
    if len(trials) > 1 and alike == names:
        sentence = (
            f"All {len(trials)} complete trials are alike in {', '.join(names)}: none is better than another."
        )
    elif len(trials) > 1 and names[0] in alike:
        sentence += f"; all are alike in {names[0]}."
    else:
        sentence += f"; the best in {names[0]} is {best['trial_id']} ({in_words(best['spec'])})."
    return Finding(title, sentence, tuple(notes), {"trials": table, "front": chosen})


def _chance(seen: Seen) -> tuple["pd.Series[float]", list[str]]:
    """How often each trial is on the front when the validation images are drawn anew; NaN where that is not known."""
    trials, points, unknown = seen.complete, seen.points, pd.Series(np.nan, index=seen.complete.index)
    if seen.run.study.objectives[0] != "accuracy" or len(points) > MOST:
        return unknown, [
            f"how sure the front is, is said for accuracy as the first objective and up to {MOST} trials"
        ]
    costs = points[:, 1:] * [SIGN[direction] for direction in seen.directions[1:]]
    stairs = np.array(
        [points[(costs <= cost).all(axis=1), 0].max() for cost in costs]
    )  # (n,): the best that costs no more
    images = len(first[1]) if (first := seen.predicted(trials.loc[0, "trial_id"])) is not None else 1
    near = np.flatnonzero(
        points[:, 0] >= stairs - DOUBT * np.sqrt(0.5 / images)
    )  # the SD of a difference is less than that
    right = []  # (near, images)
    for trial in trials.loc[near, "trial_id"]:
        if (score := seen.predicted(trial)) is None:
            return unknown, [
                "how sure the front is cannot be said: the predictions of its trials are not there"
            ]
        right.append(score[0].argmax(axis=1) == score[1])
    found = unknown.fillna(0.0)
    found.loc[near] = front_probability(np.array(right), points[near, 1:], seen.directions)
    return found, []


def _labels(trials: pd.DataFrame) -> list[str]:
    """Names for the anchors: the first trials in which all layer groups that were ever quantized are of one kind."""
    groups = {group for spec in trials["spec"] for group in spec["layers"]}
    uniform = trials["spec"].map(lambda spec: not spec["layers"] or set(spec["layers"]) == groups)
    uniform &= ~trials["arm"].str.contains("+", regex=False)
    first = uniform & ~trials[uniform].duplicated("arm").reindex(trials.index, fill_value=False)
    return [f"all {arm}" if anchor else "" for arm, anchor in zip(trials["arm"], first, strict=True)]


def confirmed(seen: Seen) -> Finding:
    """The members of the front with further seeds, on the test set."""
    title, study = "Does the front hold with other seeds?", seen.run.study
    if not study.confirm or not len(seen.points):
        note = "there is no front to confirm" if study.confirm else "the study asks for no confirmation"
        return Finding(title, notes=(note,), applies=bool(study.confirm))
    on = seen.complete["trial_id"][pareto.front(seen.points, seen.directions)]
    rows = confirmation_table.table(study, seen.run.records.to_dict("records"), on)
    done = int((rows["n"] >= study.confirm).sum())
    sentence = f"{done} of {len(rows)} settings have their {study.confirm} further seeds; the search chose by another one."
    return Finding(title, sentence, tables={"confirmed": rows})


def progress(seen: Seen) -> Finding:
    """Hypervolume over trials."""
    title, names = "Did more trials still help?", list(seen.run.study.objectives)
    if len(seen.points) < 2:
        return Finding(
            title, notes=(f"a course needs two complete trials, but there is {len(seen.points) or 'none'}",)
        )
    if not np.ptp(seen.points, axis=0).any():
        return Finding(
            title,
            notes=(f"all {len(seen.points)} complete trials are alike, and a course needs two that differ",),
        )
    logs = np.array(
        [TABLE[name].in_ratios and bool((seen.points[:, i] > 0).all()) for i, name in enumerate(names)]
    )
    points = np.where(logs, np.log(np.where(logs, seen.points, 1.0)), seen.points)
    reference = reference_point(points, seen.directions)
    volumes = hypervolume_over_trials(points, reference, seen.directions)
    whole = volumes[-1]
    table = pd.DataFrame({"trials": np.arange(1, len(points) + 1), "hypervolume": volumes / (whole or 1.0)})
    last = int(np.flatnonzero(np.diff(volumes, prepend=0) > 0)[-1]) + 1 if whole else 0
    sentence = f"The front's hypervolume last grew with complete trial {last} of {len(points)}."
    corner = [
        f"{COLUMNS[name]} {cell(name, value)}"
        for name, value in zip(
            names, np.where(logs, np.exp(np.where(logs, reference, 0)), reference), strict=True
        )
    ]
    scale = [COLUMNS[name] for name, log in zip(names, logs, strict=True) if log]
    note = f"the hypervolume counts from {', '.join(corner)}" + (
        f"; {' and '.join(scale)} on a log scale" if scale else ""
    )
    return Finding(title, sentence, (note,), {"hypervolume": table})


def parameters(seen: Seen) -> Finding:
    """Which parameter matters."""
    title = "Which parameter matters?"
    if _confounded(seen):
        return Finding(title, notes=(TOGETHER,), applies=False)
    found = importance.by_parameter(seen.complete, seen.run.study.directions, seen.run.study.seed)
    clear = found.table[found.table["importance"] > found.table["chance"]]
    said = [
        f"{name}: {', '.join(rows['parameter'].head(3))}"
        + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        for name, rows in clear.groupby("objective", sort=False)
    ]
    sentence = (
        f"Beyond chance (1 in 20 for each), the best tenth of the trials differ in {'; '.join(said)}."
        if said
        else ""
    )
    return Finding(title, sentence, (found.note,) * bool(found.note), {"parameters": found.table})


def layers(seen: Seen) -> Finding:
    """What each precision of each layer group adds."""
    title = "What does each layer group cost?"
    if _confounded(seen):
        return Finding(title, notes=(TOGETHER,), applies=False)
    found = layer_effects.by_layer(seen.complete, seen.run.study.objectives)
    table, sentence = found.table, ""
    first = table[table["objective"] == seen.run.study.objectives[0]]
    loss = SIGN[seen.directions[0]]  # the sign of an effect that costs
    dear = first[(first["low"] * loss > 0) & (first["high"] * loss > 0)]
    if len(dear):
        worst = dear.loc[(dear["effect"] * loss).idxmax()]
        unit, times = (" points", 100) if worst["objective"] == "accuracy" else ("", 1)
        low, effect, high = (f"{times * worst[key]:+.3g}" for key in ("low", "effect", "high"))
        sentence = f"The dearest in {worst['objective']} is {worst['group']} as {worst['precision']}: {effect}{unit} ({low} to {high}"
        sentence += f", 95 %, on its own), by an additive model of {len(seen.complete)} trials."
    return Finding(title, sentence, (found.note,) * bool(found.note), {"layers": table})


def _confounded(seen: Seen) -> bool:
    return bool(seen.run.study.design) and "factorial" not in seen.run.study.design


def confusion(seen: Seen) -> Finding:
    """Which classes are taken for which, by trials of the same images; and what the quantized one confuses more often.

    The matrices are those of the first seed; what differs is tested on each.
    """
    title, compared = "Which classes are taken for which?", _compared(seen)
    trials = {name: next(iter(by_seed.values())) for name, by_seed in compared.items()}
    found = {
        split: {name: seen.predicted(trial, split) for name, trial in trials.items()}
        for split in ("test", "validation")
    }
    kept = {
        split: {name: value for name, value in each.items() if value is not None}
        for split, each in found.items()
    }
    split, told = max(
        kept.items(), key=lambda item: len(item[1])
    )  # the test images, where validation has no more
    if not told:
        return Finding(title, notes=("no predictions of a complete trial are there",))
    guesses, labels = (
        {name: logits.argmax(axis=1) for name, (logits, _) in told.items()},
        next(iter(told.values()))[1],
    )
    baseline, *others = told
    tables = {
        "confusion": confusions({name: (guess, labels) for name, guess in guesses.items()}, seen.classes)
    }
    if others:
        tables["confusion_difference"] = differences(tables["confusion"])
    if len(seen.classes) <= CLASSES and (changes := list(_changes(seen, split, compared, baseline, others))):
        tables["confused_more"] = repeated(pd.concat(changes, ignore_index=True))
    shown = [examples(logits, labels, seen.classes).assign(model=n) for n, (logits, _) in told.items()]
    tables["examples"] = pd.concat(shown).assign(split=split)
    said = []
    for name, rows in tables["confusion"].groupby("model", sort=False):
        wrong = rows[(rows["label"] != rows["predicted"]) & (rows["count"] > 0)].sort_values(
            "count", kind="stable"
        )
        worst = (
            f"most often takes {wrong['label'].iloc[-1]} for {wrong['predicted'].iloc[-1]}"
            if len(wrong)
            else "makes no mistake"
        )
        said.append(f"{name} {worst}")
    sentence = f"On the {len(labels):,} {split} images, {'; '.join(said)}."
    ids = ", ".join(f"{name} is {trial}" for name, trial in trials.items())
    lost = [
        f"the predictions of {name}, trial {trial}, are not there"
        for name, trial in trials.items()
        if name not in told
    ]
    return Finding(title, sentence, (f"each model is one trial: {ids}", *lost), tables)


def _changes(
    seen: Seen, split: str, compared: dict[str, dict[int, str]], baseline: str, others: list[str]
) -> Iterator[pd.DataFrame]:
    """What each model confuses otherwise than the baseline of its seed, where the predictions of both are there."""
    for name in others:
        for seed, trial in compared[name].items():
            ours, theirs = (seen.predicted(each, split) for each in (trial, compared[baseline].get(seed, "")))
            if ours and theirs:
                found = changed(ours[0].argmax(axis=1), theirs[0].argmax(axis=1), ours[1], seen.classes)
                yield found.assign(model=name, seed=seed)


def _compared(seen: Seen) -> dict[str, dict[int, str]]:
    """The trials whose predictions are compared, the full-precision ones first: by name, their ids by seed.

    Of a design, each step's seeds with the most images: of a ladder its bottom, its top and its reference, of a
    sensitivity design those that take all layer groups alike; of a search, the most accurate full and quantized trial.
    """
    study = seen.run.study
    if seen.design is not None:
        rows = seen.design[(seen.design["role"] == "seed") & (seen.design["status"] == "complete")]
        rows = rows.sort_values(["images", "seed"], ascending=[False, True], kind="stable")
        if {"ladder", "leave-one-out"} & {*study.design}:
            top = study.steps[-1].name if "ladder" in study.design else "all"
            rows = rows[rows["step"].isin([study.base, top, study.reference.name if study.reference else ""])]
        if "sensitivity" in study.design:
            rows = rows[(rows["step"] == "full") | rows["step"].str.endswith(": all")].assign(step="")
        rows = rows.assign(name=rows["step"].where(rows["step"] != "", rows["arm"])).drop_duplicates(
            ["name", "seed"]
        )
    else:
        best = seen.complete.sort_values("accuracy", ascending=False, kind="stable")
        kind = best["arm"].where(best["arm"] == "full", "quantized")
        rows = best.assign(name=kind, seed=0)[
            ~kind.duplicated()
        ]  # held against each other, whatever their seeds
    rows = rows.assign(quantized=rows["arm"] != "full").sort_values("quantized", kind="stable")
    found = rows.groupby("name", sort=False)
    return {str(name): dict(zip(trials["seed"], trials["trial_id"], strict=True)) for name, trials in found}


def failures(seen: Seen) -> Finding:
    """Trials that did not end well."""
    records = seen.run.records
    failed, stopped = records[records["status"] == "failed"], int((records["status"] == "pruned").sum())
    table = failed[["trial_id", "status", "arm", "seed", "fraction", "error"]].reset_index(drop=True)
    sentence = f"{len(failed)} of {len(records)} recorded trials failed" if len(records) else ""
    sentence += (
        (f"; {stopped} were stopped early, as the study asks." if stopped else ".") if sentence else ""
    )
    return Finding(
        "What went wrong?", sentence, () if len(records) else ("no trial is recorded",), {"failures": table}
    )
