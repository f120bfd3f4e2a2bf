"""What the trials of a run show: the front and its growth, what matters, what failed."""

import numpy as np
import pandas as pd

from ablate.analysis import importance, layer_effects, pareto
from ablate.analysis.front_uncertainty import front_probability
from ablate.analysis.hypervolume import hypervolume_over_trials, reference_point
from ablate.config.objectives import COLUMNS, SIGN, TABLE, cell
from ablate.formatting import describe_bounds, describe_layers, images_of
from ablate.reporting import confirmation_table
from ablate.reporting.run_results import Finding, RunResults

MAX_STANDARD_ERRORS = 3.0  # of the accuracy: a trial further below the front is not on it by chance
MAX_PREDICTIONS = 5000  # trials whose predictions are read
CONFOUNDED = (
    "the cells of the design are held against each other; "
    "over all of its trials, what changes together is not told apart"
)


def front(results: RunResults) -> Finding:
    """The Pareto front, its knee, and how sure each trial's place on it is."""
    title, study = "Which trials does no other beat?", results.run.study
    if not len(results.points):
        bounds = f" and {describe_bounds(study.within)}" if study.within else ""
        return Finding(title, notes=(f"there is no complete trial with every objective{bounds}",))
    trials = results.complete
    on_front = pareto.front(results.points, results.directions)
    on_stairs = pareto.front(results.points[:, :2], results.directions[:2])
    probability, notes = _front_probability(results)
    knee = pareto.knee(results.points, results.directions)
    columns = ["trial_id", "arm", "seed", "fraction", *dict.fromkeys(["accuracy", *study.objectives])]
    table = trials[columns].assign(
        layers=[describe_layers(spec) for spec in trials["spec"]],
        front=trials.index.isin(on_front),
        stairs=trials.index.isin(on_stairs),
        knee=trials.index == knee,
        front_probability=probability,
        label=_labels(trials),
    )
    chosen = pareto.front_of(trials, study.directions)
    sentence = _front_sentence(results, len(on_front), knee, trials.loc[chosen.index[0]])
    return Finding(title, sentence, tuple(notes), {"trials": table, "front": chosen})


def _front_sentence(results: RunResults, on_front: int, knee: int | None, best: pd.Series) -> str:
    trials, names = results.complete, list(results.run.study.objectives)
    ranges = np.ptp(results.points, axis=0)
    alike = [name for name, extent in zip(names, ranges, strict=True) if extent == 0]
    if len(trials) > 1 and alike == names:
        return (
            f"All {len(trials)} complete trials are alike in {', '.join(names)}: none is better than another."
        )
    sentence = f"{on_front} of {len(trials)} complete trials are on the front over {', '.join(names)}"
    if knee is not None:
        sentence += (
            f"; its knee is {trials.loc[knee, 'trial_id']} ({describe_layers(trials.loc[knee, 'spec'])})"
        )
    if len(trials) > 1 and names[0] in alike:
        return f"{sentence}; all are alike in {names[0]}."
    return f"{sentence}; the best in {names[0]} is {best['trial_id']} ({describe_layers(best['spec'])})."


def _front_probability(results: RunResults) -> tuple["pd.Series[float]", list[str]]:
    """How often each trial is on the front when the validation images are resampled.

    NaN where that is not known; then a note says why.
    """
    trials, points = results.complete, results.points
    unknown = pd.Series(np.nan, index=trials.index)
    if results.run.study.objectives[0] != "accuracy" or len(points) > MAX_PREDICTIONS:
        limits = f"for accuracy as the first objective and up to {MAX_PREDICTIONS} trials"
        return unknown, [f"how sure the front is, is said {limits}"]
    costs = points[:, 1:] * [SIGN[direction] for direction in results.directions[1:]]  # (n, objectives - 1)
    # (n,): the best accuracy among the trials that cost no more
    stairs = np.array([points[(costs <= cost).all(axis=1), 0].max() for cost in costs])
    first = results.predicted(trials.loc[0, "trial_id"])
    images = len(first[1]) if first is not None else 1
    # The standard deviation of a difference of two accuracies is below sqrt(0.5 / images).
    near = np.flatnonzero(points[:, 0] >= stairs - MAX_STANDARD_ERRORS * np.sqrt(0.5 / images))
    correct = []  # (near, images)
    for trial in trials.loc[near, "trial_id"]:
        if (predictions := results.predicted(trial)) is None:
            reason = "the predictions of its trials are not there"
            return unknown, [f"how sure the front is cannot be said: {reason}"]
        logits, labels = predictions
        correct.append(logits.argmax(axis=1) == labels)
    probability = unknown.fillna(0.0)
    probability.loc[near] = front_probability(np.array(correct), points[near, 1:], results.directions)
    return probability, []


def _labels(trials: pd.DataFrame) -> list[str]:
    """A label for each trial, mostly "".

    The first trial of each precision in which all layer groups are alike has one. All layer groups are those
    that any of the trials quantizes.
    """
    groups = {group for spec in trials["spec"] for group in spec["layers"]}
    uniform = trials["spec"].map(lambda spec: not spec["layers"] or set(spec["layers"]) == groups)
    uniform &= ~trials["arm"].str.contains("+", regex=False)
    first = uniform & ~trials[uniform].duplicated("arm").reindex(trials.index, fill_value=False)
    return [f"all {arm}" if anchor else "" for arm, anchor in zip(trials["arm"], first, strict=True)]


def confirmed(results: RunResults) -> Finding:
    """The members of the front with further seeds, on test images."""
    title, study = "Does the front hold with other seeds?", results.run.study
    if not study.confirm or not len(results.points):
        note = "there is no front to confirm" if study.confirm else "the study asks for no confirmation"
        return Finding(title, notes=(note,), applies=bool(study.confirm))
    on_front = results.complete["trial_id"][pareto.front(results.points, results.directions)]
    rows = confirmation_table.table(study, results.run.records.to_dict("records"), on_front)
    done = f"{int((rows['n'] >= study.confirm).sum())} of {len(rows)} settings"
    tested = f"They are tested on {images_of(study.test)}."
    sentence = f"{done} have their {study.confirm} further seeds; the search chose by another one. {tested}"
    return Finding(title, sentence, tables={"confirmed": rows})


def progress(results: RunResults) -> Finding:
    """How the hypervolume of the front grew over the trials."""
    title, names, points = "Did more trials still help?", list(results.run.study.objectives), results.points
    if len(points) < 2:
        note = f"a course needs two complete trials, but there is {len(points) or 'none'}"
        return Finding(title, notes=(note,))
    if not np.ptp(points, axis=0).any():
        note = f"all {len(points)} complete trials are alike, and a course needs two that differ"
        return Finding(title, notes=(note,))
    positive = (points > 0).all(axis=0)
    logs = np.array([TABLE[name].in_ratios for name in names]) & positive
    scaled = np.where(logs, np.log(np.where(logs, points, 1.0)), points)
    reference = reference_point(scaled, results.directions)
    volumes = hypervolume_over_trials(scaled, reference, results.directions)
    total = volumes[-1]
    table = pd.DataFrame({"trials": np.arange(1, len(points) + 1), "hypervolume": volumes / (total or 1.0)})
    last = int(np.flatnonzero(np.diff(volumes, prepend=0) > 0)[-1]) + 1 if total else 0
    sentence = f"The front's hypervolume last grew with complete trial {last} of {len(points)}."
    unscaled = np.where(logs, np.exp(np.where(logs, reference, 0)), reference)
    corner = [f"{COLUMNS[name]} {cell(name, value)}" for name, value in zip(names, unscaled, strict=True)]
    note = f"the hypervolume counts from {', '.join(corner)}"
    if logs.any():
        logarithmic = [COLUMNS[name] for name, log in zip(names, logs, strict=True) if log]
        note += f"; {' and '.join(logarithmic)} on a log scale"
    return Finding(title, sentence, (note,), {"hypervolume": table})


def parameters(results: RunResults) -> Finding:
    """Which parameters set the best trials apart."""
    title = "Which parameter matters?"
    if _is_confounded(results):
        return Finding(title, notes=(CONFOUNDED,), applies=False)
    study = results.run.study
    result = importance.by_parameter(results.complete, study.directions, study.seed)
    clear = result.table[result.table["importance"] > result.table["chance"]]
    clauses = []
    for name, rows in clear.groupby("objective", sort=False):
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        clauses.append(f"{name}: {', '.join(rows['parameter'].head(3))}{more}")
    sentence = ""
    if clauses:
        differences = "; ".join(clauses)
        sentence = f"Beyond chance (1 in 20 for each), the best tenth of the trials differ in {differences}."
    return Finding(title, sentence, (result.note,) if result.note else (), {"parameters": result.table})


def layers(results: RunResults) -> Finding:
    """What each precision of each layer group adds to each objective."""
    title = "What does each layer group cost?"
    if _is_confounded(results):
        return Finding(title, notes=(CONFOUNDED,), applies=False)
    first_objective = results.run.study.objectives[0]
    result = layer_effects.by_layer(results.complete, results.run.study.objectives)
    effects = result.table[result.table["objective"] == first_objective]
    loss = SIGN[results.directions[0]]  # the sign of an effect that costs
    costly = effects[(effects["low"] * loss > 0) & (effects["high"] * loss > 0)]
    sentence = ""
    if len(costly):
        worst = costly.loc[(costly["effect"] * loss).idxmax()]
        unit, scale = (" points", 100) if first_objective == "accuracy" else ("", 1)
        low, effect, high = (f"{scale * worst[key]:+.3g}" for key in ("low", "effect", "high"))
        sentence = (
            f"The dearest in {first_objective} is {worst['group']} as {worst['precision']}: {effect}{unit} "
            f"({low} to {high}, 95 %, on its own), by an additive model of {len(results.complete)} trials."
        )
    return Finding(title, sentence, (result.note,) if result.note else (), {"layers": result.table})


def _is_confounded(results: RunResults) -> bool:
    design = results.run.study.design
    return bool(design) and "factorial" not in design


def failures(results: RunResults) -> Finding:
    """The trials that failed, and how many were stopped early."""
    title, records = "What went wrong?", results.run.records
    failed, stopped = records[records["status"] == "failed"], int((records["status"] == "pruned").sum())
    table = failed[["trial_id", "status", "arm", "seed", "fraction", "error"]].reset_index(drop=True)
    if records.empty:
        return Finding(title, "", ("no trial is recorded",), {"failures": table})
    end = f"; {stopped} were stopped early, as the study asks." if stopped else "."
    sentence = f"{len(failed)} of {len(records)} recorded trials failed{end}"
    return Finding(title, sentence, (), {"failures": table})
