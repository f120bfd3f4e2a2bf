"""The trials of two arms over the volume of training data, paired by their seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ablate.analysis.t_interval import Floats
from ablate.formatting import images_of

# (arm, seed, images) -> (N,) booleans: whether the trial classifies each of the same N test images correctly
Correctness = Mapping[tuple[str, Any, int], ArrayLike]
KEY = ["arm", "seed", "images"]
COLUMNS = [*KEY, "accuracy", "loss"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The trials that both arms have, of S seeds and K sizes. Arrays begin with the axis (baseline, arm).

    They are NaN where a seed lacks a trial of either arm at a size.

    Attributes:
        images: (K,), ascending.
        seeds: S of them.
        accuracy: (2, S, K), in [0, 1].
        loss: (2, S, K); None where a loss is missing.
        correct: (2, S, K, N), 0 or 1 for each test image; None where it is not known.
        table: a row per size, also for sizes that are left out.
        measured_on: the images of the accuracies.
        notes: what was left out, and why.
    """

    images: NDArray[np.int64]
    seeds: list[Any]
    accuracy: Floats
    loss: Floats | None
    correct: NDArray[np.float32] | None
    table: pd.DataFrame
    measured_on: str
    notes: tuple[str, ...]

    @property
    def gap(self) -> Floats:
        """(S, K), above 0 where the baseline is better."""
        return self.accuracy[0] - self.accuracy[1]

    @property
    def complete(self) -> "Pairs":
        """The pairs of the seeds that have all sizes."""
        rows = np.flatnonzero(np.isfinite(self.gap).all(axis=1))
        return replace(
            self,
            seeds=[self.seeds[i] for i in rows],
            accuracy=self.accuracy[:, rows],
            loss=None if self.loss is None else self.loss[:, rows],
            correct=None if self.correct is None else self.correct[:, rows],
        )


def pair(
    records: pd.DataFrame, *, arm: str, baseline: str, above: float, correctness: Correctness | None = None
) -> Pairs:
    """Pairs the trials of an arm and its baseline. Nothing raises: the notes say what had to be left out.

    Args:
        records: a row per trial, as for `data_volume_all`.
        arm: the arm.
        baseline: the arm to compare it with.
        above: sizes at which the mean accuracy of the baseline or of the arm is not above this are left out.
        correctness: of each trial's test images, where known.

    Returns:
        The sizes that both arms have, with the seeds that have a trial of both arms at any of them.
    """
    notes: list[str] = []
    rows, measured_on = _complete(records, (baseline, arm), notes)
    by_arm = [rows[rows["arm"] == name] for name in (baseline, arm)]
    accuracies, losses = (
        [trials.pivot(index="seed", columns="images", values=column) for trials in by_arm]
        for column in ("accuracy", "loss")
    )
    full, other = accuracies
    sizes = full.columns.intersection(other.columns).sort_values()
    if lone := [f"{size:,}" for size in sorted({*full.columns, *other.columns} - {*sizes})]:
        notes.append(f"left out: {' and '.join(lone)} images, which only one arm has")
    kept = sizes
    for name, table in zip((baseline, arm), accuracies, strict=True):
        kept = kept.intersection(_above_chance(table[sizes].mean(), above, name, notes))
    seeds = full.index.intersection(other.index)
    full, other = (table.reindex(index=seeds, columns=sizes) for table in accuracies)
    paired = full.notna() & other.notna()  # (S, sizes)
    if lone := [f"{size:,}" for size in kept if not paired[size].any()]:
        notes.append(f"left out: {' and '.join(lone)} images, at which no seed has a trial of both arms")
    kept = kept[paired[kept].any().to_numpy(dtype=bool)]
    seeds = seeds[paired[kept].any(axis=1).to_numpy(dtype=bool)]
    notes += _without_pair(accuracies, paired.loc[seeds, kept])
    full, other = full.where(paired).loc[seeds], other.where(paired).loc[seeds]
    accuracy = np.stack([table[kept].to_numpy(float) for table in (full, other)])  # (2, S, K)
    loss = np.stack([table.reindex(index=seeds, columns=kept).to_numpy(float) for table in losses])
    loss = np.where(np.isnan(accuracy), np.nan, loss)
    correct = None
    if correctness is not None:
        correct = _correct(correctness, [baseline, arm], seeds, kept, accuracy, notes)
    table = [_row(size, size in kept, full[size], other[size]) for size in sizes]
    return Pairs(
        images=kept.to_numpy(dtype=np.int64),
        seeds=list(seeds),
        accuracy=accuracy,
        loss=loss if (np.isfinite(loss) | np.isnan(accuracy)).all() else None,
        correct=correct,
        table=pd.DataFrame(table, columns=ROW),
        measured_on=measured_on,
        notes=tuple(notes),
    )


def _above_chance(means: "pd.Series[float]", above: float, arm: str, notes: list[str]) -> Any:
    """The sizes at which an arm's mean accuracy is above a limit."""
    kept = means.index[(means > above).to_numpy(dtype=bool)]
    left_out = means[means.index.difference(kept)]
    if len(left_out):
        sizes = " and ".join(f"{size:,}" for size in left_out.index)
        at = " and ".join(dict.fromkeys(f"{100 * value:.1f} %" for value in left_out))
        notes.append(f"left out: {sizes} images, where {arm} itself is near chance ({at})")
    return kept


ROW = ["images", "kept", "seeds", "accuracy_baseline", "accuracy_arm", "gap", "low", "high"]


def _row(size: int, kept: bool, baseline: pd.Series, arm: pd.Series) -> tuple[Any, ...]:
    """A row of `Pairs.table`; its interval comes later."""
    gap = (baseline - arm).dropna().to_numpy(float)
    mean = gap.mean() if len(gap) else np.nan
    return size, kept, len(gap), baseline.mean(), arm.mean(), mean, np.nan, np.nan


def _complete(records: pd.DataFrame, arms: Sequence[str], notes: list[str]) -> tuple[pd.DataFrame, str]:
    """The complete trials of these arms with `COLUMNS`, and the split that they were measured on."""
    nothing = pd.DataFrame(columns=COLUMNS), "nothing"
    if absent := [column for column in (*KEY, "accuracy") if column not in records]:
        notes.append(f"there are no records with {', '.join(absent)}")
        return nothing
    rows = records[records["arm"].isin(arms)]
    if "role" in rows:  # the tuning trials of a design are not paired
        rows = rows[rows["role"] == "seed"]
    if "status" in rows:
        rows = rows[rows["status"] == "complete"]
    tested = "test_accuracy" in rows and rows["test_accuracy"].notna().any()
    if tested:
        untested = rows["test_accuracy"].isna()
        if untested.any():
            notes.append(f"left out: {_trials(untested)} without a test accuracy")
        rows = rows[~untested]
    measured = {name: rows.get(f"test_{name}" if tested else name) for name in COLUMNS[3:]}
    parts = {*rows["test"]} if "test" in rows and tested else {bool(tested)}
    if len(parts) > 1:
        notes.append("the trials were tested on different images: pass those of one study only")
        return nothing
    rows = rows.assign(**measured)[COLUMNS].reset_index(drop=True)
    numbers = COLUMNS[2:]
    rows[numbers] = rows[numbers].apply(pd.to_numeric, errors="coerce")
    sound = rows["seed"].notna() & rows["images"].between(1, 1e15) & rows["accuracy"].between(0, 1)
    if not sound.all():
        unsound = _trials(~sound)
        notes.append(f"left out: {unsound} without seed, images or an accuracy in [0, 1]")
    rows = rows[sound].astype({"images": int}).drop_duplicates([*KEY, "accuracy"])
    if rows.duplicated(KEY).any():
        problem = "several trials share arm, seed and images but differ in accuracy"
        notes.append(f"{problem}: pass the trials of one design only")
        return nothing
    missing = [name for name in dict.fromkeys(arms) if not (rows["arm"] == name).any()]
    notes += [f"there is no complete trial of {name}" for name in missing]
    return rows, images_of(parts.pop() if parts else False)


def _correct(
    correctness: Correctness,
    arms: Sequence[str],
    seeds: Sequence[Any],
    sizes: Sequence[int],
    accuracy: Floats,
    notes: list[str],
) -> NDArray[np.float32] | None:
    """(2, S, K, N); None, with a note, where they are missing or do not match the accuracies (2, S, K)."""
    try:
        cells = [
            np.asarray(correctness[arms[a], seeds[s], sizes[k]], np.float32)
            for a, s, k in np.argwhere(np.isfinite(accuracy))
        ]
        found = np.array(cells)  # (pairs of all arms, N)
        if found.ndim != 2 or found.shape[1] < 2 or not np.isin(found, (0, 1)).all():
            notes.append("test images are not resampled: correctness must be 0 or 1 for two images or more")
            return None
        correct = np.full((*accuracy.shape, found.shape[1]), np.nan, np.float32)
        correct[np.isfinite(accuracy)] = found
        if np.nanmax(np.abs(correct.mean(axis=3) - accuracy)) < 1e-4:
            return correct
        notes.append("test images are not resampled: their correctness does not match the accuracies")
    except (KeyError, ValueError, TypeError):
        notes.append("test images are not resampled: not every trial has predictions of the same images")
    return None


def _without_pair(accuracies: Sequence[pd.DataFrame], paired: pd.DataFrame) -> list[str]:
    """A note on the pairs that lack a trial, by the tables of both arms and the pairs (S, K) there are."""
    seeds = accuracies[0].index.union(accuracies[1].index)
    lacking = ~paired.reindex(seeds, fill_value=False)
    if not (count := int(lacking.to_numpy().sum())):
        return []
    some = ", ".join(str(seed) for seed in seeds[lacking.any(axis=1).to_numpy()])
    return [f"left out: {count} of {lacking.size} pairs, which lack a trial (of seed {some})"]


def _trials(chosen: "pd.Series[bool]") -> str:
    """Their number in words: "1 trial", "3 trials"."""
    return "1 trial" if chosen.sum() == 1 else f"{chosen.sum()} trials"
