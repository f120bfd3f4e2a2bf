"""Is the data to blame? How the gap between two arms depends on the volume of training data.

The gap is the baseline's accuracy minus the arm's, in trials of the same seed. These have the same nested
subset, initialisation and order of data. The data axis is cut into two segments, and the verdict is read from
intervals of the change of the gap over each of them and over both (`segments`), which hold together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.data_needed import data_needed
from ablate.analysis.pairs import Correctness, Pairs, pair
from ablate.analysis.scales import scales
from ablate.analysis.seed_bootstrap import resample
from ablate.analysis.segments import changes, cut, gap_mean, turns
from ablate.analysis.t_interval import estimate
from ablate.analysis.trend import trend
from ablate.analysis.verdict import DataVolume, decide
from ablate.analysis.verdict_rules import Rules

NO_NOISE = "there is no noise to estimate an interval from"


def data_volume(records: pd.DataFrame, *, arm: str, **options: Any) -> DataVolume:
    """`data_volume_all` of one arm, with the same options."""
    return data_volume_all(records, arms=[arm], **options)[arm]


def data_volume_all(
    records: pd.DataFrame,
    *,
    arms: Sequence[str],
    baseline: str = "full",
    margin: float = 0.01,
    slope_margin: float = 0.01,
    relative_margin: float = 0.1,
    chance: float = 0.1,
    correctness: Correctness | None = None,
    resamples: int = 2000,
    other_recipe: Sequence[str] = (),
    questions: int = 1,
) -> dict[str, DataVolume]:
    """How the gaps of several arms depend on the volume of data. The intervals of all arms hold together.

    Args:
        records: a row per trial: arm, seed, images, accuracy in [0, 1]; optionally loss, status, role,
            test_accuracy and test_loss. Where a trial has a test accuracy, those without one are left out.
        arms: the arms to compare with the baseline.
        baseline: the full-precision arm.
        margin: gaps at the largest size within +-margin count as none ...
        slope_margin: ... and so do changes within +-slope_margin per decade of images ...
        relative_margin: ... where both are also within this share of the baseline's error.
        chance: accuracy of guessing.
        correctness: (arm, seed, images) -> (N,) booleans; with it, the intervals cover test images beside
            seeds.
        resamples: bootstrap draws; 0 leaves out `needed`.
        other_recipe: arms with another recipe than the baseline's. Their sentences say that the gap is not
            that of quantization alone.
        questions: how often the arms are judged, as at several lengths: the intervals of all hold together.

    Returns:
        The verdicts, by arm. Records that do not suffice give an "inconclusive" one with notes.

    Raises:
        ValueError: an option is out of its range.
    """
    if isinstance(arms, str) or resamples < 0:
        raise ValueError(f"arms must be a list and `resamples >= 0` must hold, but got {arms!r}, {resamples}")
    tested, other = tuple(dict.fromkeys(arms)), tuple(other_recipe)
    margins = margin, slope_margin, chance, relative_margin
    rules = Rules(tested, baseline, *margins, other_recipe=other, questions=questions)
    above = chance + rules.near_chance
    return {
        arm: judge(
            arm,
            pair(records, arm=arm, baseline=baseline, above=above, correctness=correctness),
            rules,
            resamples,
        )
        for arm in rules.arms
    }


def judge(arm: str, pairs: Pairs, rules: Rules, resamples: int = 2000) -> DataVolume:
    """The verdict on trials that are paired already.

    Args:
        arm: one of `rules.arms`.
        pairs: its trials and the baseline's.
        rules: the limits and margins.
        resamples: bootstrap draws; 0 leaves out `needed`.

    Returns:
        The verdict.
    """
    seeds, sizes = pairs.gap.shape
    notes = [*pairs.notes]
    complete = pairs.complete
    slopes = trend(pairs.images, complete.gap) if complete.seeds and sizes > 1 else np.array([])
    slope = estimate(slopes)
    needed = pd.DataFrame()
    if resamples and slope:
        needed = data_needed(complete, resample(complete, resamples))
    images = "" if pairs.correct is None else f" and {pairs.correct.shape[-1]:,} test images"
    only = "" if images else " alone: they say nothing of other images"
    basis = f"Measured on {pairs.measured_on}; intervals cover seeds{images}{only}."
    table = changes(pairs, rules)
    return decide(
        DataVolume(
            arm=arm,
            verdict="inconclusive",
            sentence="",
            rules=rules,
            seeds=seeds,
            changes=table,
            slope=slope,
            slopes=pd.Series(slopes, index=complete.seeds[: len(slopes)], name="slope"),
            gaps=_gaps(pairs, rules),
            scales=scales(complete, notes),
            needed=needed,
            basis=basis if seeds else "Nothing can be compared.",
            notes=(*notes, *_limits(pairs, table, rules)),
        )
    )


def _gaps(pairs: Pairs, rules: Rules) -> pd.DataFrame:
    """The table of sizes, with intervals of the gaps at the kept ones that hold together over all arms."""
    table, together = pairs.table.copy(), len(pairs.images) * len(rules.arms) * rules.questions
    confidence = 1 - rules.alpha / max(1, together)
    means = [gap_mean(pairs, k) for k in range(len(pairs.images))]
    intervals = [mean.interval(confidence) if mean else (np.nan, np.nan) for mean in means]
    if intervals:
        table.loc[table["kept"], ["low", "high"]] = np.array(intervals)
    return table


def _limits(pairs: Pairs, table: pd.DataFrame, rules: Rules) -> list[str]:
    """What this design cannot show, and what may mislead."""
    seeds, sizes = pairs.gap.shape
    notes = []
    if seeds < 2:
        notes.append(f"an interval needs two paired seeds, but there is {seeds or 'none'}")
    if sizes < 2:
        notes.append(f"a change needs two sizes, but {sizes or 'none'} can be compared")
    if seeds < 2 or sizes < 2:
        return notes
    if cut(pairs.images) is None:
        given = ", ".join(f"{size:,}" for size in pairs.images)
        rule = "two segments of half a decade or more need three sizes, the outer ones a decade apart"
        notes.append(f"{rule}, but those that can be compared are {given} images")
    elif table.empty:
        notes.append(f"all seeds agree in the gap or in a change of it, so {NO_NOISE}")
    gap = table[table["contrast"] == "gap"]
    if len(gap) and gap["high"].iloc[0] < 0:
        lead = f"the arm is ahead of {rules.baseline}, the gap is below 0"
        notes.append(f"at the largest size {lead}, and a fall is a growing lead")
    for start, end in turns(pairs, rules):
        inside = f"from {start:,} to {end:,} images the gap both falls and rises"
        notes.append(f"{inside}: its change over this segment hides that")
    return notes
