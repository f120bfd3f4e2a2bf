"""What several runs show side by side: fronts, hypervolumes, differences, and the fields that differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis import pareto
from ablate.analysis.contrasts import contrasts
from ablate.analysis.t_interval import mean_interval
from ablate.config.objectives import AXES, COLUMNS, OBJECTIVES, SIGN, TABLE, cell
from ablate.formatting import describe_layers
from ablate.reporting.comparison import TEXTS, Comparison, Points, contents
from ablate.reporting.run_results import Finding, RunResults
from ablate.runs.same_study import study_fields

N_LEVELS = 4  # of the second objective, at which the first is compared


def comparison_findings(compared: Comparison) -> dict[str, Finding]:
    """What the comparison shows, by name."""
    return {
        "fronts": _fronts(compared),
        "hypervolumes": _hypervolumes(compared),
        "differences": _differences(compared),
        "differing": _differing(compared),
    }


def _fronts(compared: Comparison) -> Finding:
    """The front of each group over the first two objectives, and what a share of its seeds attains."""
    title, rows, corners = "Whose front is ahead?", [], []
    names, ways = compared.objectives[:2], compared.directions[:2]
    for group in compared.groups:
        for seed, trials in group.trials.items():
            front = pareto.front_of(trials, dict(zip(names, ways, strict=True)))
            for trial in front.to_dict("records"):
                values = {name: trial[name] for name in compared.objectives}
                row = {"runs": group.label, "seed": seed, "trial": trial["trial_id"], **values}
                rows.append(row | {"layers": describe_layers(trial["spec"])})
        if len(names) < 2 or not group.trials:
            continue
        sets = [points[:, :2] for points in compared.samples(group).values()]
        for level in dict.fromkeys((1 / len(sets), 0.5, 1.0)):
            found = pareto.attainment(sets, ways, level)
            corners += [
                {"runs": group.label, "level": level, **dict(zip(names, each, strict=True))} for each in found
            ]
    counts = [f"{group.label} {sum(map(len, group.trials.values()))}" for group in compared.groups]
    notes = [f"complete trials: {', '.join(counts)}"]
    if any(len(group.trials) > 1 for group in compared.groups):
        notes.append(
            "a line is what half of the seeds attain, and its band reaches from what all do to what one does"
        )
    tables = {"front_members": pd.DataFrame(rows), "front_attained": pd.DataFrame(corners)}
    return Finding(title, "", tuple(notes), tables)


def _scaled(compared: Comparison, points: Points) -> Points:
    """Points (n, m) with the logarithm of what counts in ratios in all runs."""
    pooled = compared.pooled
    logs = np.array([TABLE[name].in_ratios for name in compared.objectives]) & (pooled > 0).all(axis=0)
    return np.where(logs, np.log(np.where(logs, points, 1.0)), points)


def _volumes(compared: Comparison) -> dict[str, dict[int, float]]:
    """The hypervolume of each seed, in % of that of all runs together, by group."""
    pooled = _scaled(compared, compared.pooled)
    reference = pareto.reference_point(pooled, compared.directions)
    whole = pareto.hypervolume(pooled, reference, compared.directions) or 1.0

    def share(points: Points) -> float:
        return 100 * pareto.hypervolume(_scaled(compared, points), reference, compared.directions) / whole

    return {
        g.label: {seed: share(each) for seed, each in compared.samples(g).items()} for g in compared.groups
    }


def _hypervolumes(compared: Comparison) -> Finding:
    title = "How much does each front dominate?"
    if not compared.same_data:
        return Finding(title, notes=(_other_data(),))
    rows = []
    for label, volumes in _volumes(compared).items():
        mean, low, high = mean_interval(list(volumes.values()))
        rows.append({"runs": label, "seeds": len(volumes), "hypervolume (%)": mean, "low": low, "high": high})
    table = pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)
    best = table.loc[table["hypervolume (%)"].idxmax()]
    over = " and ".join(COLUMNS[name] for name in compared.objectives)
    share = f"{best['hypervolume (%)']:.1f} % of the hypervolume of all fronts together"
    sentence = f"The largest hypervolume is that of {best['runs']}: {share}, over {over}."
    notes = ("intervals are 95 % t intervals over seeds, each by itself", _more_trials())
    return Finding(title, sentence, notes, {"hypervolumes": table})


def _more_trials() -> str:
    return "the best of more trials is better by luck alone, so compare runs of equal numbers of trials"


def _other_data() -> str:
    return "the runs have different images, so their accuracies do not compare"


def _levels(compared: Comparison) -> list[float]:
    """Values of the second objective, from one that every sample keeps to the worst; [] without one."""
    if len(compared.objectives) < 2:
        return []
    sign = SIGN[compared.directions[1]]
    columns = [
        sign * points[:, 1] for group in compared.groups for points in compared.samples(group).values()
    ]
    first, last = max(column.min() for column in columns), max(column.max() for column in columns)
    if first >= last:
        return []
    in_ratios = TABLE[compared.objectives[1]].in_ratios and first > 0
    levels = (np.geomspace if in_ratios else np.linspace)(first, last, N_LEVELS)
    return [float(sign * level) for level in levels]


def _best_within(points: Points, level: float | None, directions: Sequence[Any]) -> float:
    """The best of the first objective among points (n, m) whose second one is no worse than a level."""
    kept = points
    if level is not None:
        sign = SIGN[directions[1]]
        kept = points[sign * points[:, 1] <= sign * level * (1 + 1e-12)]
    sign = SIGN[directions[0]]
    return float(sign * (sign * kept[:, 0]).min()) if len(kept) else np.nan


def _differences(compared: Comparison) -> Finding:
    """Of each group from the first, by seed: the first objective within levels, and the hypervolume."""
    title = f"How far are they from {compared.groups[0].label}?"
    first, *others = compared.groups
    if not others:
        return Finding(title, notes=("the runs are seeds of one study",), applies=False)
    if not compared.same_data:
        return Finding(title, notes=(_other_data(),))
    axis, ways = AXES[compared.objectives[0]], compared.directions
    unit = "points" if axis.name == "accuracy" else axis.label.rpartition("(")[2].rstrip(")")
    levels: list[float | None] = [*_levels(compared)] or [None]
    volumes, family, rows, unpaired = _volumes(compared), [], [], []
    for group in others:
        seeds = sorted({*first.trials} & {*group.trials})
        if not seeds:
            unpaired.append(group.label)
        for level in levels:
            ours, theirs = (
                {seed: _best_within(points, level, ways) / axis.unit for seed, points in each.items()}
                for each in (compared.samples(group), compared.samples(first))
            )
            family.append(_paired(ours, theirs, seeds))
            of = f"{COLUMNS[axis.name]}{'' if level is None else _within(compared, level)}"
            rows.append({"runs": group.label, "of": of, "unit": unit, "level": level})
        family.append(_paired(volumes[group.label], volumes[first.label], seeds))
        rows.append({"runs": group.label, "of": "hypervolume", "unit": "% of all", "level": None})
    found = contrasts(family).replace([np.inf, -np.inf], np.nan)
    table = pd.concat([pd.DataFrame(rows), found[["n", "mean", "low", "high", "holm"]]], axis=1)
    notes = [
        f"intervals hold together with 95 %, over {int(found['contrasts'].max())} contrasts",
        _more_trials(),
    ]
    if unpaired:
        notes = [f"no interval, since no seed is shared with {first.label}: {', '.join(unpaired)}", *notes]
    elif (found["n"] < 2).any():
        notes = ["an interval needs two shared seeds or more", *notes]
    return Finding(title, _sentence(table, first.label), tuple(notes), {"differences": table})


def _paired(ours: dict[int, float], theirs: dict[int, float], seeds: list[int]) -> list[float]:
    """Differences by seed; without a shared one, the difference of the means alone."""
    if seeds:
        return [ours[seed] - theirs[seed] for seed in seeds]
    if not (ours and theirs):
        return []
    return [float(np.mean([*ours.values()]) - np.mean([*theirs.values()]))]


def _within(compared: Comparison, level: float) -> str:
    name = compared.objectives[1]
    return f" {'from' if OBJECTIVES[name] == 'max' else 'up to'} {cell(name, level)}"


def _sentence(table: pd.DataFrame, first: str) -> str:
    """How many differences exclude 0."""
    clear = table[(table["low"] > 0) | (table["high"] < 0)]
    return f"{len(clear)} of {len(table)} differences from {first} can be told from 0."


def _differing(compared: Comparison) -> Finding:
    """The fields of the studies that are not the same in all runs."""
    title = "What differs in their studies?"
    fields = {label: _flat(results) for label, results in compared.runs.items()}
    names = dict.fromkeys(name for each in fields.values() for name in each)
    rows = []
    for name in names:
        values = {label: each.get(name, "absent") for label, each in fields.items()}
        if len({*values.values()}) > 1:
            rows.append({"field": name, **values})
    sentence = f"{len(rows)} fields differ." if rows else "Nothing differs in their studies."
    return Finding(title, sentence, tables={"differing": pd.DataFrame(rows)})


def _flat(results: RunResults) -> dict[str, str]:
    """A study's fields by dotted name, and the digests of its model and data."""
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):  # steps
            value = {each.pop("name"): {key: part for key, part in each.items() if part} for each in value}
        if isinstance(value, dict) and value:
            for key, each in value.items():
                add(f"{name}.{key}" if name else str(key), each)
        else:
            flat[name] = "none" if value is None else str(value)

    fields = study_fields(results.run.study)
    add("", {name: value for name, value in fields.items() if name not in TEXTS})
    digests = {f"{name} (digest)": value[:12] for name, value in contents(results).items()}
    return flat | digests
