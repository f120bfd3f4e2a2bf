"""What the front of a run shows: its members, its curve, how sure both are, and what further seeds say."""

import numpy as np
import pandas as pd

from ablate.analysis import pareto
from ablate.analysis.fitted_front import FrontFit, SizeEstimate
from ablate.analysis.mean_draws import mean_intervals
from ablate.config.objectives import COLUMNS, TABLE, cell
from ablate.errors import BadInput
from ablate.formatting import describe_bounds, describe_layers, images_of
from ablate.reporting import confirmation_table
from ablate.reporting.confirmation_table import setting_of
from ablate.reporting.csv_tables import read_csv
from ablate.reporting.front_measurements import Measurements, measure
from ablate.reporting.run_results import Finding, RunResults

LOSS, LOSS_TEXT = 0.01, "1 point"  # of accuracy, below the best of the fitted curve


def front(results: RunResults) -> Finding:
    """The Pareto front, its knee, its fitted curve, and how probable each setting's place on it is."""
    title, study = "Which trials does no other beat?", results.run.study
    if not len(results.points):
        bounds = f" and {describe_bounds(study.within)}" if study.within else ""
        return Finding(title, notes=(f"there is no complete trial with every objective{bounds}",))
    trials, measured = results.complete, measure(results)
    on_front = pareto.front(results.points, results.directions)
    on_stairs = pareto.front(results.points[:, :2], results.directions[:2])
    probability, unsure = _front_probability(measured)
    knee = pareto.knee(results.scaled, results.directions)
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
    curve = _fitted(measured)
    sentence = f"{sentence} {curve.sentence}".rstrip()
    tables = {"trials": table, "front": chosen, **curve.tables}
    notes = (unsure, *curve.notes, *_of_latencies(results))
    if len(ranges := _seed_range(results)):
        tables["seed_range"] = ranges
        further = ranges["n_seeds"].sum() - len(ranges)
        notes = (f"trials that repeat an anchor with a further seed, and are on no front: {further}", *notes)
    return Finding(title, sentence, notes, tables)


def _of_latencies(results: RunResults) -> list[str]:
    """How near the front's latencies, which are sums, are to those of whole models, where both are known."""
    numbers = ("latency_ms_summed", "latency_ms_measured")
    try:
        rows = read_csv(results.run.path / "tables" / "latency.csv", texts=("trial_id",), numbers=numbers)
    except (OSError, ValueError):  # absent, or copied in part
        return []
    ratios = (rows["latency_ms_summed"] / rows["latency_ms_measured"]).dropna()
    if ratios.empty:
        return []
    low, high = f"{ratios.min():.2f}", f"{ratios.max():.2f}"
    size = low if low == high else f"{low} to {high}"
    return [f"latencies are sums of parts, {size} times what the front's models take as a whole"]


def _seed_range(results: RunResults) -> pd.DataFrame:
    """How the first objective varies over the seeds of an anchor.

    Returns:
        A row for each anchor with further seeds: its trial, the objectives, the number of its seeds, the
        lowest and the highest value of the first objective over them, and the ids of all their trials.
    """
    objectives, searched = list(results.run.study.objectives), results.run.searched
    trained = searched[searched["status"] == "complete"].dropna(subset=objectives)
    settings = trained.assign(setting=list(map(setting_of, trained.to_dict("records"))))
    values = settings.groupby("setting").agg(
        n_seeds=("seed", "size"),
        low=(objectives[0], "min"),
        high=(objectives[0], "max"),
        trials=("trial_id", " ".join),
    )
    repeated = values[values["n_seeds"] > 1] if not results.run.study.design else values.head(0)
    rows = results.complete[["trial_id", *objectives]]
    keys = list(map(setting_of, results.complete.to_dict("records")))
    return rows.assign(setting=keys).merge(repeated, on="setting").drop(columns="setting")


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


def _front_probability(measured: Measurements) -> tuple["pd.Series[float]", str]:
    """How probable it is that the setting of each complete trial is on the front; NaN where it is not known.

    Returns:
        (n,) by complete trial, and a note that says over what, or why not.
    """
    results, seeds = measured.results, measured.trials.shape[1]
    ways = results.run.study.directions
    others = [name for name in ways if name != "accuracy"]
    ids, unknown = results.complete["trial_id"], pd.Series(np.nan, index=results.complete.index)
    if "accuracy" not in ways or any(TABLE[name].known != "counted" for name in others):
        return unknown, "how probable a place on the front is, is said for accuracy beside what is counted"
    if not len(measured.settings):
        return unknown, f"how probable a place on the front is, is not said: {measured.notes[0]}"
    if seeds < 2:
        reason = "one seed tells nothing about the noise between seeds"
        return unknown, f"how probable a place on the front is, is not said: {reason}"
    scores = measured.scores(np.arange(len(measured.settings)))
    directions = [ways[name] for name in ("accuracy", *others)]
    found = pareto.front_probability(scores, measured.settings[others], directions)
    of_setting = dict(zip(measured.settings["trial_id"], found, strict=True))
    for seed in measured.trials:
        of_setting |= dict(zip(measured.trials[seed], found, strict=True))
    over = f"{_settings(len(found))} ({measured.how}{' and its images' if scores.shape[2] > 1 else ''})"
    return ids.map(
        of_setting
    ), f"the probability of a place on the front is that of a trial's setting, among {over}"


def _settings(number: int) -> str:
    return f"{number} setting{'' if number == 1 else 's'}"


def _fitted(measured: Measurements) -> Finding:
    """The curve through the front over accuracy and the first objective that is a cost in ratios."""
    ways, settings = measured.results.run.study.directions, measured.settings
    cost = next((name for name in ways if TABLE[name].in_ratios and ways[name] == "min"), None)
    if cost is None or "accuracy" not in ways:
        return Finding("")
    if not len(settings):
        return Finding("", notes=(f"no curve is drawn through the front: {measured.notes[0]}",))
    members = pareto.front(settings[["accuracy", cost]].to_numpy(dtype=float), ["max", "min"])
    scores = measured.scores(members)
    low, high = mean_intervals(scores)
    points = settings.iloc[members][["trial_id", "arm", cost]]
    points = points.assign(accuracy=scores.mean(axis=(1, 2)), low=low, high=high)
    covered = {"measured_on": measured.split}
    covered |= dict(zip(("measured_seeds", "measured_images"), scores.shape[1:], strict=True))
    tables = {"front_points": points.assign(**covered)}
    over = f"{_settings(len(members))} on the front of accuracy and {COLUMNS[cost]} ({measured.how})"
    try:
        fit = pareto.fit(settings[cost].iloc[members], scores, loss=LOSS)
    except BadInput as error:
        return Finding("", "", (f"no curve is drawn through the {over}: {error}", *measured.notes), tables)
    sizes = [("knee", *fit.knee), (f"within {LOSS_TEXT} of the best", *fit.within_loss)]
    ends = pd.DataFrame(sizes, columns=["at", cost, f"{cost}_low", f"{cost}_high"])
    tables |= {"front_fit": fit.curve.rename(columns={"size": cost}).assign(**covered), "front_sizes": ends}
    notes = (f"the curve is fitted to the {over}", *measured.notes, *fit.notes)
    return Finding("", _curve_sentence(measured.how, cost, fit), notes, tables)


def _curve_sentence(how: str, cost: str, fit: FrontFit) -> str:
    def text(size: SizeEstimate) -> str:
        if np.isnan(size.low):
            return cell(cost, size.value)
        if np.isinf(size[1:]).all():
            return f"{cell(cost, size.value)} (its interval is open)"
        low, high = (cell(cost, end) if np.isfinite(end) else "open" for end in size[1:])
        alone = " over images alone" if fit.seeds == 1 else ""
        return f"{cell(cost, size.value)} ({low} to {high}, 95 %{alone})"

    clauses = [f"has its knee at {text(fit.knee)}"] if np.isfinite(fit.knee.value) else []
    loss = f"within {LOSS_TEXT} of its best"
    if np.isfinite(fit.within_loss.value):
        clauses.append(f"is {loss} from {text(fit.within_loss)} on")
    else:
        clauses.append(f"is {loss} at every {COLUMNS[cost]}")
    return f"The curve through it ({how}) {' and '.join(clauses)}."


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
    seeds = "1 further seed" if study.confirm == 1 else f"{study.confirm} further seeds"
    sentence = f"{done} have their {seeds}; the search chose by another one. {tested}"
    return Finding(title, sentence, tables={"confirmed": rows})
