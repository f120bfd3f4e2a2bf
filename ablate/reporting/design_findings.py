"""What a designed study shows: its cells, the costs of layer groups, the steps of a ladder."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis import paired
from ablate.analysis.contrasts import RULE, contrasts, excludes_zero
from ablate.analysis.sensitivity import sensitivities
from ablate.analysis.t_interval import estimate, simultaneous, t_quantile
from ablate.formatting import images_of
from ablate.reporting.run_results import Finding, RunResults
from ablate.reporting.tuning_notes import tuning_notes

COST = ["accuracy_cost", "accuracy_low", "accuracy_high"]


def cells(results: RunResults) -> Finding:
    """What each cell of the design reached."""
    title, table = "What did each cell reach?", results.design
    if table is None:
        return Finding(title, notes=("the study is a search, and has no design",), applies=False)
    if "sensitivity" in results.run.study.design:
        note = "what its cells cost is said by layer group"
        return Finding(title, notes=(note,), tables={"design": table}, applies=False)
    tested = bool(table["test_accuracy"].notna().any())
    column, images = "test_accuracy" if tested else "accuracy", images_of(tested and results.run.study.test)
    seeds = paired.by_seed(table, column)
    means = contrasts([seeds[cell] for cell in seeds]).rename(columns={"contrasts": "means"})
    means = means.drop(columns="holm").assign(cell=seeds.columns)[["cell", *means.columns.drop("holm")]]
    if means["mean"].isna().all():
        return Finding(title, "", ("no paired trial has ended yet",), {"design": table})
    sentence = f"{_best_cell(seeds, means)}; all on {images}."
    unknown = int(means["mean"].isna().sum())
    lacking = (f"{unknown} of {len(means)} cells have no mean yet",) if unknown else ()
    notes = (*lacking, *_left_out(table, column), *tuning_notes(table))
    return Finding(title, sentence, notes, {"cells": means, "design": table})


def _best_cell(seeds: pd.DataFrame, means: pd.DataFrame) -> str:
    """The cell with the highest mean, by seeds (seeds, cells), and how many others it is above."""
    known = means.dropna(subset="mean")
    best = known.loc[known["mean"].idxmax()]
    reached = f"{best['mean']:.1%} on {best['n']} {'seed' if best['n'] == 1 else 'seeds'}"
    if len(known) == 1:
        one = (
            "The design has one cell"
            if len(means) == 1
            else f"Of {len(means)} cells only {best['cell']} has a mean"
        )
        return f"{one}: {reached}"
    others = seeds[known["cell"]].drop(columns=best["cell"])
    pairs = len(known) * (len(known) - 1) // 2  # which cell is the best was not known beforehand
    differences = [(seeds[best["cell"]] - others[cell]).dropna().to_numpy(float) for cell in others]
    found = [estimate(values, simultaneous(pairs)) for values in differences]
    highest = f"The highest of {len(known)} means is that of {best['cell']}: {reached}"
    if not any(found):
        return f"{highest}; {_no_interval(differences, int(known['n'].max()))}"
    above = sum(each is not None and each.low > 0 for each in found)
    rule = f"by paired 95 % intervals, simultaneous over all {pairs} pairs"
    return f"{highest}, above {above} of the {len(found)} others {rule}"


def _no_interval(differences: list[NDArray[np.float64]], seeds: int) -> str:
    """Why no difference of the best cell from another, by paired seeds, has an interval."""
    if seeds == 1:
        return "with one seed no two can be told apart"
    if max(map(len, differences)) < 2:
        return "with fewer than two paired seeds it can be told from no other"
    return "its differences from the others are the same on all paired seeds, and leave no noise to judge by"


def _joint(contrasts: int, one: str, what: str, seeds: float) -> str:
    """A note on the intervals of a family of contrasts, paired over so many seeds."""
    if contrasts == 0:
        return f"with fewer than two paired seeds no {one} has an interval: noise alone may make it"
    wider = t_quantile(seeds - 1, simultaneous(contrasts)) / t_quantile(seeds - 1)
    return (
        f"95 % intervals are simultaneous over {contrasts} {what}; with {seeds:.0f} seeds each is "
        f"{wider:.1f} times as wide as it would be alone; {RULE}"
    )


def _left_out(table: pd.DataFrame, column: str) -> tuple[str, ...]:
    """A note on the complete paired trials without a value in the column."""
    trials = table[(table["role"] == "seed") & (table["status"] == "complete")].drop_duplicates("trial_id")
    if lacking := int(trials[column].isna().sum()):
        return (f"left out, with their pairs: {lacking} of {len(trials)} trials without {column}",)
    return ()


def sensitivity(results: RunResults) -> Finding:
    """What each layer group costs, as the only quantized one and as the last one to be quantized."""
    title, table = "What does each layer group cost, one at a time?", results.design
    if "sensitivity" not in results.run.study.design:
        return Finding(title, notes=("the study does not take layer groups one at a time",), applies=False)
    if table is None or (costs := sensitivities(table)).dropna(subset="accuracy_cost").empty:
        return Finding(title, notes=("no two trials to hold against each other have ended yet",))
    known = costs.dropna(subset="accuracy_cost").groupby("precision", sort=False)
    clauses = [_costs_of_precision(str(precision), rows) for precision, rows in known]
    notes = [*_left_out(table, "accuracy")]
    notes.append(_joint(costs["contrasts"].max(), "cost", "costs in accuracy", costs["n"].max()))
    if n_unknown := int(costs["accuracy_cost"].isna().sum()):
        notes.append(f"{n_unknown} of {len(costs)} costs are not known yet")
    sentence = ". ".join(filter(None, clauses))
    return Finding(title, f"{sentence}." if sentence else "", tuple(notes), {"sensitivity": costs})


def _costs_of_precision(precision: str, rows: pd.DataFrame) -> str:
    """The clause about one precision, from its known costs; "" where nothing of it can be said."""
    whole = rows.loc[rows["how"] == "all", COST].to_numpy()  # a row or none
    parts = [f"{precision} costs {_points(*costs)} in all" for costs in whole]
    for how, groups in rows[rows["how"] != "all"].groupby("how", sort=False):
        if told := _told_from_zero(groups.set_index("group")[COST], "costs"):
            parts.append(f"{precision} {how}, {told}")
    clause = "; ".join(parts)
    return clause[:1].upper() + clause[1:]


def _told_from_zero(estimates: pd.DataFrame, what: str) -> str:
    """How many differ from 0, and which of them is the largest; "" where none has an interval.

    estimates: a row an estimate, under its name: the value, and the ends of its interval.
    """
    tested = estimates[np.isfinite(estimates.iloc[:, 1])]
    sure = tested[excludes_zero(tested.iloc[:, 1], tested.iloc[:, 2])]
    if tested.empty:
        return ""
    clause = f"{len(sure) or 'none'} of {len(tested)} {what} can be told from 0"
    if sure.empty:
        return clause
    largest = sure.iloc[:, 0].abs().idxmax()
    return f"{clause}, by the largest estimate {largest}: {_points(*sure.loc[largest])}"


def _points(value: float, low: float, high: float) -> str:
    """A difference of accuracies, and its interval where there is one."""
    text = f"{100 * value:+.1f} points"
    return f"{text} ({100 * low:+.1f} to {100 * high:+.1f})" if np.isfinite(low) else text


def ladder(results: RunResults) -> Finding:
    """What each step of a ladder is worth."""
    title, study, table = "What is each step worth?", results.run.study, results.design
    if "ladder" not in study.design:
        return Finding(title, notes=("the study is no ladder",), applies=False)
    if table is None:
        return Finding(title, notes=("no trial is recorded",))
    if table["test_accuracy"].isna().all():
        return Finding(title, notes=("no paired trial has ended yet",))
    reference = study.reference.name if study.reference else None
    rungs = paired.ladder(table, [study.base, *(step.name for step in study.steps)], reference)
    known = rungs.dropna(subset="mean")
    if (known["rung"] == reference).all():
        return Finding(title, notes=("no rung has a paired trial yet",))
    notes = [*_left_out(table, "test_accuracy"), *tuning_notes(table)]
    pairs = rungs[["gain_n", "cost_n"]].max().max()
    notes.append(_joint(rungs["contrasts"].max(), "gain", "gains and costs", pairs))
    if means := rungs["means"].max():
        notes.append(f"those of the means are simultaneous over {means} means")
    tables = {"ladder": rungs, "ladder_seeds": paired.by_seed(table, "test_accuracy").reset_index()}
    sentence = f"{_ladder_sentence(known, reference)}; all on {images_of(study.test)}."
    return Finding(title, sentence, tuple(notes), tables)


def _ladder_sentence(rungs: pd.DataFrame, reference: str | None) -> str:
    steps = rungs[rungs["rung"] != reference]
    first, last = steps.iloc[0], steps.iloc[-1]
    sentence = f"From {first['rung']} at {first['mean']:.1%} to {last['rung']} at {last['mean']:.1%}"
    if reference in set(rungs["rung"]):
        top = rungs.set_index("rung").loc[reference]
        sentence += f"; {reference} reaches {top['mean']:.1%}"
        if np.isfinite(top["gain_low"]):
            sentence += f", {_points(*top[['gain', 'gain_low', 'gain_high']])} from there"
    named = steps.set_index("rung")
    for before, name in (("", "gain"), ("left out alone at the top, ", "cost")):
        if told := _told_from_zero(named[[name, f"{name}_low", f"{name}_high"]], f"{name}s"):
            sentence += f"; {before}{told}"
    return sentence
