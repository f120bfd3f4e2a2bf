"""Is the data to blame? How the gap between two arms depends on the volume of training data.

The gap is the baseline's accuracy minus the arm's, in trials of the same seed. These have the same nested
subset, initialisation and order of data. Each seed gives one slope of the gap on log10 D, and a t test over
the seeds decides.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.data_needed import data_needed
from ablate.analysis.mixed_model import mixed_model
from ablate.analysis.pairs import Correctness, Pairs, pair
from ablate.analysis.scales import scales
from ablate.analysis.seed_bootstrap import percentile_interval, resample
from ablate.analysis.significance import holm, minimum_detectable_effect, sign_flip, tost
from ablate.analysis.t_interval import CONFIDENCE, Estimate, Floats, estimate
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
    chance: float = 0.1,
    correctness: Correctness | None = None,
    resamples: int = 2000,
    mixed: bool = True,
    other_recipe: Sequence[str] = (),
) -> dict[str, DataVolume]:
    """How the gaps of several arms depend on the volume of data; their tests are adjusted by Holm (1979).

    Args:
        records: a row per trial: arm, seed, images, accuracy in [0, 1]; optionally loss, status, role,
            test_accuracy and test_loss. The last two are used where every trial has them.
        arms: the arms to compare with the baseline.
        baseline: the full-precision arm.
        margin: gaps at the largest size within +-margin count as none.
        slope_margin: slopes within +-slope_margin per decade of images count as none.
        chance: accuracy of guessing.
        correctness: (arm, seed, images) -> (N,) booleans; with it, the bootstrap draws test images beside
            seeds.
        resamples: bootstrap draws; 0 leaves out bands and `needed`.
        mixed: whether to fit the mixed model.
        other_recipe: arms with another recipe than the baseline's. Their sentences say that the gap is not
            that of quantization alone.

    Returns:
        The verdicts, by arm. Records that do not suffice give an "inconclusive" one with notes.

    Raises:
        ValueError: an option is out of its range.
    """
    tested, other = tuple(dict.fromkeys(arms)), tuple(other_recipe)
    rules = Rules(tested, baseline, margin, slope_margin, chance, other_recipe=other)
    above = chance + rules.near_chance
    pairs = {
        arm: pair(records, arm=arm, baseline=baseline, above=above, correctness=correctness)
        for arm in rules.arms
    }
    return compare_arms(pairs, rules, resamples=resamples, mixed=mixed)


def compare_arms(
    pairs: dict[str, Pairs], rules: Rules, *, resamples: int = 2000, mixed: bool = True
) -> dict[str, DataVolume]:
    """The verdicts on trials that are paired already.

    Args:
        pairs: by arm, those of `rules.arms`.
        rules: the limits and margins.
        resamples: bootstrap draws; 0 leaves out bands and `needed`.
        mixed: whether to fit the mixed model.

    Returns:
        The verdicts, by arm.
    """
    results = {arm: _measure(arm, pairs[arm], rules, resamples, mixed) for arm in rules.arms}
    p = np.column_stack([result.tests["p"] for result in results.values()])  # (tests, arms)
    adjusted = dict(zip(results, np.apply_along_axis(holm, 1, p).T, strict=True))
    return {
        arm: decide(replace(result, tests=result.tests.assign(holm=adjusted[arm])))
        for arm, result in results.items()
    }


def _measure(arm: str, pairs: Pairs, rules: Rules, resamples: int, mixed: bool) -> DataVolume:
    """An arm's result without the verdict, which needs the p values of the other arms."""
    seeds, sizes = pairs.gap.shape
    notes = [*pairs.notes]
    slopes = trend(pairs.images, pairs.gap) if seeds and sizes > 1 else np.array([])
    last = pairs.gap[:, -1] if sizes else np.array([])
    slope = estimate(slopes)
    by_mixed, random = mixed_model(pairs, notes) if mixed and slope else (None, "")
    draws = resample(pairs, resamples) if resamples and slope else None
    table, slope_band = _bands(pairs, draws)
    smallest = None
    if slope:
        sd = float(slopes.std(ddof=1))
        smallest = minimum_detectable_effect(sd, seeds, rules.strictest_alpha, rules.power)
    drawn = " alone" if pairs.correct is None else f" and {pairs.correct.shape[-1]:,} images"
    return DataVolume(
        arm=arm,
        verdict="inconclusive",
        sentence="",
        rules=rules,
        seeds=seeds,
        slope=slope,
        gap=estimate(last),
        tests=_p_values(slopes, last, rules, by_mixed),
        mixed=by_mixed,
        mixed_random=random,
        slope_band=slope_band,
        smallest_slope=smallest,
        slopes=pd.Series(slopes, index=pairs.seeds[: len(slopes)], name="slope"),
        gaps=table,
        scales=scales(pairs, notes),
        needed=data_needed(pairs, draws) if draws is not None else pd.DataFrame(),
        basis=f"Measured on {pairs.measured_on}; bands by a bootstrap over seeds{drawn}.",
        notes=(*notes, *_limits(pairs, slopes, rules)),
    )


def _p_values(slopes: Floats, last: Floats, rules: Rules, mixed: Estimate | None) -> pd.DataFrame:
    """A row per test of slopes (S,) and gaps at the largest size (S,), before Holm's adjustment."""
    slope = estimate(slopes)
    p = {
        "slope": slope.p if slope else np.nan,
        "slope_equivalent": tost(slopes, rules.slope_margin),
        "gap_equivalent": tost(last, rules.margin),
        "sign_flip": sign_flip(slopes),
        "mixed": mixed.p if mixed else np.nan,
    }
    return pd.DataFrame({"p": p})


def _bands(pairs: Pairs, draws: Floats | None) -> tuple[pd.DataFrame, tuple[float, float] | None]:
    """The table of sizes with the bands of bootstrap draws (B, 2, K), and the slope's band."""
    table = pairs.table.copy()
    if draws is None:
        return table, None
    gaps, seeds = draws[:, 0] - draws[:, 1], len(pairs.seeds)  # (B, K)
    bands = np.column_stack(percentile_interval(gaps, seeds))  # (K, 2)
    table.loc[table["kept"], ["band_low", "band_high"]] = bands
    low, high = percentile_interval(trend(pairs.images, gaps), seeds)
    return table, (float(low), float(high))


def _limits(pairs: Pairs, slopes: Floats, rules: Rules) -> list[str]:
    """What this design cannot show, and what may mislead."""
    seeds, sizes = pairs.gap.shape
    notes = []
    if sizes < 2:
        notes.append(f"a slope needs two sizes, but {sizes or 'none'} can be compared")
    if seeds < 2:
        notes.append(f"an interval needs two paired seeds, but there is {seeds or 'none'}")
    if seeds < 2 or sizes < 2:
        return notes
    if estimate(slopes) is None:
        notes.append(f"the slopes of all seeds are equal, so {NO_NOISE}")
    gap = estimate(pairs.gap[:, -1])
    if gap is None:
        notes.append(f"the gaps of all seeds at the largest size are equal, so {NO_NOISE}")
    elif gap.high < 0:
        lead = f"the arm is ahead of {rules.baseline}, the gap is below 0"
        notes.append(f"at the largest size {lead}, and a slope below 0 is a growing lead")
    least = 2.0 ** (1 - seeds)  # p of sign flips where all values have one sign
    if least > rules.strictest_alpha:
        needs = f"Holm over {len(rules.arms)} needs p = {rules.strictest_alpha:.3g} for the first"
        notes.append(f"sign flips of {seeds} seeds cannot give p below {least:.2g}, but {needs}")
    if 1 - least < CONFIDENCE:
        covers = f"even their whole range covers the truth only {100 * (1 - least):.0f} % of the time"
        notes.append(f"bootstrap bands of {seeds} seeds are too narrow: {covers}")
    bend = estimate(trend(pairs.images, pairs.gap, degree=2)) if sizes > 2 else None
    if bend and bend.p < rules.alpha:
        notes.append("the gap is not a straight line in log D: the slope is its average trend")
    return notes
