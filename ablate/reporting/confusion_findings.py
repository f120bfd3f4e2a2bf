"""Which classes the models of a run take for which, and what a quantized model confuses more often."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.confusion import changed, confusions, differences, examples, repeated
from ablate.formatting import images_of, split_name
from ablate.reporting.run_results import Finding, RunResults

MAX_CLASSES = 50  # whose pairs are tested one by one

Predictions = tuple[NDArray[Any], NDArray[Any]]  # logits (N, classes), labels (N,)
TrialsBySeed = dict[int, str]  # the trial's id of each seed


def confusion(results: RunResults) -> Finding:
    """Which classes are taken for which, and what the quantized models confuse more often.

    All models are compared on the same images. The matrices are those of the first seed. The differences
    between models are tested on each seed.
    """
    title, compared = "Which classes are taken for which?", _compared_trials(results)
    trials = {name: next(iter(by_seed.values())) for name, by_seed in compared.items()}
    split, predictions = _predictions(results, trials)
    if not predictions:
        return Finding(title, notes=("no predictions of a complete trial are there",))
    logits_of = {name: logits for name, (logits, _) in predictions.items()}
    labels = next(iter(predictions.values()))[1]
    matrices = confusions(
        {n: (logits.argmax(axis=1), labels) for n, logits in logits_of.items()}, results.classes
    )
    tables = {"confusion": matrices}
    baseline, *others = predictions
    if others:
        tables["confusion_difference"] = differences(matrices)
    if len(results.classes) <= MAX_CLASSES:
        changes = list(_changes(results, split, compared, baseline, others))
        if changes:
            tables["confused_more"] = repeated(pd.concat(changes, ignore_index=True))
    test = split == "test" and results.run.study.test
    shown = [examples(logits, labels, results.classes).assign(model=n) for n, logits in logits_of.items()]
    tables["examples"] = pd.concat(shown).assign(split=split_name(test))
    models = matrices.groupby("model", sort=False)
    clauses = "; ".join(f"{name} {_worst_confusion(rows)}" for name, rows in models)
    ids = ", ".join(f"{name} is {trial}" for name, trial in trials.items())
    missing = [
        f"the predictions of {name}, trial {trial}, are not there"
        for name, trial in trials.items()
        if name not in predictions
    ]
    sentence = f"On {images_of(test)} ({len(labels):,}), {clauses}."
    return Finding(title, sentence, (f"each model is one trial: {ids}", *missing), tables)


def _predictions(results: RunResults, trials: dict[str, str]) -> tuple[str, dict[str, Predictions]]:
    """The predictions of the trials (by name) that have some, and the split they are on.

    The split is "test" unless more trials have predictions on the validation images.
    """
    by_split = {}
    for split in ("test", "validation"):
        predictions = {name: results.predicted(trial, split) for name, trial in trials.items()}
        by_split[split] = {name: pair for name, pair in predictions.items() if pair is not None}
    return max(by_split.items(), key=lambda item: len(item[1]))


def _worst_confusion(matrix: pd.DataFrame) -> str:
    wrong = matrix[(matrix["label"] != matrix["predicted"]) & (matrix["count"] > 0)]
    if wrong.empty:
        return "makes no mistake"
    worst = wrong.sort_values("count", kind="stable").iloc[-1]
    return f"most often takes {worst['label']} for {worst['predicted']}"


def _changes(
    results: RunResults, split: str, compared: dict[str, TrialsBySeed], baseline: str, others: list[str]
) -> Iterator[pd.DataFrame]:
    """How each model's confusions differ from the baseline's of the same seed, if both were kept."""
    for name in others:
        for seed, trial in compared[name].items():
            ours = results.predicted(trial, split)
            theirs = results.predicted(compared[baseline].get(seed, ""), split)
            if ours and theirs:
                guesses, baseline_guesses = ours[0].argmax(axis=1), theirs[0].argmax(axis=1)
                table = changed(guesses, baseline_guesses, ours[1], results.classes)
                yield table.assign(model=name, seed=seed)


def _compared_trials(results: RunResults) -> dict[str, TrialsBySeed]:
    """The trials whose predictions are compared, by name, the full-precision ones first."""
    rows = _compared_of_search(results) if results.design is None else _compared_of_design(results)
    rows = rows.assign(quantized=rows["arm"] != "full").sort_values("quantized", kind="stable")
    return {
        str(name): dict(zip(trials["seed"], trials["trial_id"], strict=True))
        for name, trials in rows.groupby("name", sort=False)
    }


def _compared_of_search(results: RunResults) -> pd.DataFrame:
    """The most accurate full and the most accurate quantized trial, whatever their seeds."""
    best = results.complete.sort_values("accuracy", ascending=False, kind="stable")
    kind = best["arm"].where(best["arm"] == "full", "quantized")
    return best.assign(name=kind, seed=0)[~kind.duplicated()]


def _compared_of_design(results: RunResults) -> pd.DataFrame:
    """Each step's seeds with the most images.

    Of a ladder only its bottom, its top and its reference; of a sensitivity design only those that treat all
    layer groups alike.
    """
    study, table = results.run.study, results.design
    assert table is not None
    rows = table[(table["role"] == "seed") & (table["status"] == "complete")]
    rows = rows.sort_values(["images", "seed"], ascending=[False, True], kind="stable")
    if {"ladder", "leave-one-out"} & {*study.design}:
        top = study.steps[-1].name if "ladder" in study.design else "all"
        rows = rows[rows["step"].isin([study.base, top, study.reference.name if study.reference else ""])]
    if "sensitivity" in study.design:
        rows = rows[(rows["step"] == "full") | rows["step"].str.endswith(": all")].assign(step="")
    rows = rows.assign(name=rows["step"].where(rows["step"] != "", rows["arm"]))
    return rows.drop_duplicates(["name", "seed"])
