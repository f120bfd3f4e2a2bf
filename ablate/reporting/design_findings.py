"""What a designed study shows: its cells, the costs of layer groups, the steps of a ladder."""

import pandas as pd

from ablate.analysis import paired
from ablate.analysis.sensitivity import sensitivities
from ablate.analysis.t_interval import mean_interval
from ablate.formatting import images_of
from ablate.reporting.run_results import Finding, RunResults


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
    rows = [(cell, int(seeds[cell].notna().sum()), *mean_interval(seeds[cell])) for cell in seeds]
    means = pd.DataFrame(rows, columns=["cell", "n", "mean", "low", "high"])
    if means["mean"].isna().all():
        return Finding(title, "", ("no paired trial has ended yet",), {"design": table})
    best = means.loc[means["mean"].idxmax()]
    if len(means) > 1:
        start = f"The best of {len(means)} cells is {best['cell']}:"
    else:
        start = "The design has one cell:"
    sentence = f"{start} {best['mean']:.1%} of {images}, on {best['n']} seeds."
    return Finding(title, sentence, (), {"cells": means, "design": table})


def sensitivity(results: RunResults) -> Finding:
    """What each layer group costs, as the only quantized one and as the last one to be quantized."""
    title, table = "What does each layer group cost, one at a time?", results.design
    if "sensitivity" not in results.run.study.design:
        return Finding(title, notes=("the study does not take layer groups one at a time",), applies=False)
    if table is None or (costs := sensitivities(table)).dropna(subset="accuracy_cost").empty:
        return Finding(title, notes=("no two trials to hold against each other have ended yet",))
    groups = costs["group"].nunique() - 1  # one of the names is "", for all groups together
    known = costs.dropna(subset="accuracy_cost").groupby("precision", sort=False)
    clauses = [_costs_of_precision(str(precision), rows, groups) for precision, rows in known]
    sentence = ". ".join(filter(None, clauses))
    notes = []
    if costs["n"].max() == 1:
        notes.append("with one seed no cost has an interval: noise alone may make it")
    if n_unknown := int(costs["accuracy_cost"].isna().sum()):
        notes.append(f"{n_unknown} of {len(costs)} costs are not known yet")
    return Finding(title, f"{sentence}." if sentence else "", tuple(notes), {"sensitivity": costs})


def _costs_of_precision(precision: str, rows: pd.DataFrame, groups: int) -> str:
    """The clause about one precision; "" where none of its groups can be compared."""
    alone = rows[rows["how"] == "alone"].sort_values("accuracy_cost")
    together = rows[rows["how"] == "all"]
    parts = []
    if len(together):
        parts.append(f"{100 * together['accuracy_cost'].iloc[0]:.1f} points in all")
    if len(alone) > 1:
        least, most = (
            f"{row['group']} ({100 * row['accuracy_cost']:.1f})" for _, row in alone.iloc[[0, -1]].iterrows()
        )
        part = f"alone most in {most} and least in {least}"
        if len(alone) == groups:
            part += f"; the costs alone sum to {100 * alone['accuracy_cost'].sum():.1f}"
        parts.append(part)
    return f"{precision.capitalize()} costs {', '.join(parts)}" if parts else ""


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
    notes: tuple[str, ...] = ()
    if rungs["n"].max() == 1:
        notes = ("with one paired seed no gain has an interval: noise alone may make it",)
    tables = {"ladder": rungs, "ladder_seeds": paired.by_seed(table, "test_accuracy").reset_index()}
    sentence = f"{_ladder_sentence(known, reference)}; all on {images_of(study.test)}."
    return Finding(title, sentence, notes, tables)


def _ladder_sentence(rungs: pd.DataFrame, reference: str | None) -> str:
    steps = rungs[rungs["rung"] != reference]
    first, last = steps.iloc[0], steps.iloc[-1]
    sentence = f"From {first['rung']} at {first['mean']:.1%} to {last['rung']} at {last['mean']:.1%}"
    if reference in set(rungs["rung"]):
        sentence += f"; {reference} reaches {rungs.set_index('rung').loc[reference, 'mean']:.1%}"
    if steps["gain"].notna().any():
        best = steps.loc[steps["gain"].idxmax()]
        sentence += f"; the largest step is {best['rung']} ({100 * best['gain']:+.1f} points)"
    return sentence
