"""What is known of the accuracy of each setting of a run: by seed, by image, and afresh where it can be."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.reporting.confirmation_table import setting_of
from ablate.reporting.run_results import RunResults

MAX_PREDICTIONS = 1000  # trials whose predictions are read at once
SAME = "these are the accuracies by which the front was chosen, and they are too high by an unknown amount"
SAME_SEEDS = "the front was chosen by validation images with the same seeds, whose luck remains"


@dataclass(frozen=True)
class Measurements:
    """The accuracies of n settings with the same S seeds.

    Args:
        results: Of the run.
        settings: (n,) rows: the setting's first trial among the complete ones, with the means over its seeds
            of the objectives by which the run chose.
        trials: (n, S) ids of the trials that measure it; the columns are the seeds.
        accuracy: (n, S) of these trials.
        split: Of the images on which it was measured, "validation" or "test".
        how: What was measured, in words.
        notes: What was left out, and what the choice does to the measurement.
    """

    results: RunResults
    settings: pd.DataFrame
    trials: pd.DataFrame
    accuracy: pd.DataFrame
    split: str
    how: str
    notes: tuple[str, ...]

    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Whether each image is classified correctly, (rows, S, images).

        (rows, S, 1) accuracies where predictions are missing or too many.
        """
        ids, accuracies = self.trials.to_numpy()[rows], self.accuracy.to_numpy(dtype=float)[rows, :, None]
        correct: list[NDArray[np.bool_]] = []
        for trial in ids.ravel() if ids.size <= MAX_PREDICTIONS else []:
            if (predictions := self.results.predicted(trial, self.split)) is None:
                return accuracies
            correct.append(predictions[0].argmax(axis=1) == predictions[1])
        if len({len(each) for each in correct}) != 1:
            return accuracies
        return np.array(correct, dtype=float).reshape(*ids.shape, -1)


def measure(results: RunResults) -> Measurements:
    """The settings of a run and their accuracies.

    A search whose front was confirmed has that of the further seeds on the test images, which had no part in
    the choice. A design has that of its paired seeds, on the test images if they were tested. Any other run
    has that of its own trials.

    Args:
        results: Of a run with complete trials.
    """
    complete, records = results.complete, results.run.records
    if results.run.study.design:
        return _paired(results, complete, complete, "seeds")
    fresh = records[records["spec"].map(lambda spec: spec["test"] == results.run.study.test).astype(bool)]
    if results.run.study.confirm and (fresh["status"] == "complete").any():
        found = _paired(results, complete, fresh[fresh["status"] == "complete"], "further seeds")
        if len(found.settings):
            return found
    own = complete[["trial_id", "accuracy"]]
    how, note = "validation accuracy of its own trials", f"{SAME}; `confirm` measures them with further seeds"
    return Measurements(results, complete, own[["trial_id"]], own[["accuracy"]], "validation", how, (note,))


def _paired(results: RunResults, chosen: pd.DataFrame, measured: pd.DataFrame, kind: str) -> Measurements:
    """The settings that have all seeds which most settings have; none where too few seeds are shared.

    Args:
        results: Of the run.
        chosen: The trials by which the run chose.
        measured: The trials that measure the settings, which may be the same.
        kind: Of the seeds, in words, ending in "seeds".
    """
    tested = measured["test_accuracy"].notna()
    split, column = ("test", "test_accuracy") if tested.any() else ("validation", "accuracy")
    trials = _with_setting(measured[tested] if tested.any() else measured)
    trials = trials.drop_duplicates(["setting", "seed"])
    accuracy = trials.pivot(index="setting", columns="seed", values=column)
    groups = _with_setting(chosen).groupby("setting", sort=False)
    settings = groups.first().assign(**groups[list(results.run.study.objectives)].mean())
    known = accuracy[accuracy.index.isin(settings.index)]
    seeds = known.columns[known.notna().mean() > 0.5]
    kept = settings.index[settings.index.isin(known[seeds].dropna().index)] if len(seeds) else []
    notes = []
    if not len(kept):
        notes.append(f"too few seeds are shared by the {len(known)} settings")
    elif measured is chosen:
        notes.append(SAME_SEEDS if split == "test" else SAME)
    if (lost := len(known) - len(kept)) and len(kept):
        notes.append(f"left out: {lost} of {len(known)} settings, which lack a seed")
    ids = trials.pivot(index="setting", columns="seed", values="trial_id").loc[kept, seeds]
    how = f"{split} accuracy over {len(seeds)} {kind.removesuffix('s') if len(seeds) == 1 else kind}"
    return Measurements(results, settings.loc[kept], ids, known.loc[kept, seeds], split, how, tuple(notes))


def _with_setting(records: pd.DataFrame) -> pd.DataFrame:
    return records.assign(setting=[setting_of(record) for record in records.to_dict("records")])
