"""What the trials of a run show: how the front grew, what failed."""

import numpy as np
import pandas as pd

from ablate.analysis.hypervolume import hypervolume_over_trials, reference_point
from ablate.config.objectives import COLUMNS, cell
from ablate.reporting.run_results import Finding, RunResults


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
