"""What the trials of a run show: how the front grew, what matters, what failed."""

import numpy as np
import pandas as pd

from ablate.analysis import importance, layer_effects
from ablate.analysis.hypervolume import hypervolume_over_trials, reference_point
from ablate.config.objectives import COLUMNS, SIGN, cell
from ablate.reporting.run_results import Finding, RunResults

CONFOUNDED = (
    "the cells of the design are held against each other; "
    "over all of its trials, what changes together is not told apart"
)


def progress(results: RunResults) -> Finding:
    """How the hypervolume of the front grew over the trials."""
    title, names, points = "Did more trials still help?", list(results.run.study.objectives), results.points
    if len(points) < 2:
        note = f"a course needs two complete trials, but there is {len(points) or 'none'}"
        return Finding(title, notes=(note,))
    if not np.ptp(points, axis=0).any():
        note = f"all {len(points)} complete trials are alike, and a course needs two that differ"
        return Finding(title, notes=(note,))
    logs, scaled = results.in_ratios, results.scaled
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
