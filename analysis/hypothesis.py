"""Is the data to blame? A verdict on how the gap between two arms depends on the volume of training data.

The gap is the baseline's accuracy minus the arm's, of trials with the same seed, and so the same nested subset,
initialisation and order of data. Each seed gives one slope of the gap on log10 D; t over the seeds decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis import paired
from ablate.analysis.opinions import mixed_model, scales
from ablate.analysis.over_seeds import (
    Estimate,
    Floats,
    equivalent,
    estimate,
    holm,
    sign_flip,
    smallest_effect,
)
from ablate.analysis.volume import Correctness, Pairs, band, needed, pair, resampled, trend

VERDICTS = (
    "The verdict is the first of these that is shown: constant, the slope is none; closes, the slope is below 0 and the gap at "
    "the largest size is none; shrinks, the slope is below 0; grows, it is above 0; else inconclusive. That something is none "
    "is shown by two one-sided tests (TOST), and never by a test that found nothing."
)


@dataclass(frozen=True)
class Rules:
    """What is fixed before the data are seen. Accuracies, gaps and margins in [0, 1], slopes a decade of images."""

    arms: tuple[str, ...]
    baseline: str
    margin: float  # of the gap at the largest size
    slope_margin: float
    chance: float
    near_chance: float = 0.05
    alpha: float = 0.05
    power: float = 0.8
    other_recipe: tuple[str, ...] = ()  # arms that were trained by another recipe than the baseline

    def __post_init__(self) -> None:
        if not (self.margin > 0 and self.slope_margin > 0 and 0 <= self.chance < 1):
            got = f"(margin={self.margin}, slope_margin={self.slope_margin}, chance={self.chance})"
            raise ValueError(
                f"`margin > 0`, `slope_margin > 0` and `0 <= chance < 1` must hold, but got {got}"
            )

    def __str__(self) -> str:
        return f"{self.fixed} {VERDICTS}"

    @property
    def fixed(self) -> str:
        """The limits and margins."""
        near = f"{100 * self.near_chance:g}"
        return (
            f"Fixed beforehand: a size is left out where {named(self.baseline)}'s mean accuracy is within {near} "
            f"points of chance ({100 * self.chance:g} %); a gap within {_points(self.margin)} at the largest size is none; "
            f"a slope within {_points(self.slope_margin)} a decade of images is none; alpha {100 * self.alpha:g} %, by t "
            f"over paired seeds, by Holm over {len(self.arms)} {'arms' if len(self.arms) > 1 else 'arm'}, test by test."
        )


@dataclass(frozen=True, eq=False)
class DataVolume:
    """The verdict on one arm and all it rests on; None or NaN where something cannot be said, and why in the notes.

    verdict: as VERDICTS says. "shrinks" does not say that the gap stays open: that it closes is not shown.
    """

    arm: str
    verdict: str
    sentence: str
    rules: Rules
    seeds: int
    slope: Estimate | None  # of the gap, a decade of images; its interval and p are those of this arm alone
    gap: Estimate | None  # at the largest size
    tests: (
        pd.DataFrame
    )  # slope, slope_equivalent, gap_equivalent, sign_flip, mixed: p, and by Holm over the arms
    mixed: Estimate | None  # the slope by a mixed model
    mixed_random: (
        str  # what is random over seeds in it: "intercept and slope", "intercept", "nothing"; "" without one
    )
    slope_band: tuple[float, float] | None  # bootstrap
    smallest_slope: (
        float | None
    )  # that this design finds with a power of 80 %, by the SD seen, where Holm asks the most of it
    slopes: pd.Series  # by seed
    gaps: pd.DataFrame  # a row a size: mean accuracies, gap with t interval (low, high) and bootstrap band
    scales: (
        pd.DataFrame
    )  # slope and gap in accuracy, logits, log error ratio and loss, above 0 where the arm is worse
    needed: pd.DataFrame  # a row a size: how many times the data the arm needs
    basis: str  # the split that was measured on, and what the bootstrap drew
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            [self.sentence, str(self.rules), self.basis, *(f"Note: {note}." for note in self.notes)]
        )


def data_volume(records: pd.DataFrame, *, arm: str, **options: Any) -> DataVolume:
    """Whether an arm's gap to the baseline closes, shrinks, stays or grows with the volume of data.

    The options are those of `data_volume_all`.
    """
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
    """`data_volume` of several arms, whose tests are adjusted for their number (Holm 1979); by arm.

    records: arm, seed, images, accuracy in [0, 1]; loss, status, role, test_accuracy and test_loss where there are (the
    last two are used where every trial has them). margin, slope_margin: the gap at the largest size, and the slope a decade
    of images, that count as none. correctness: (arm, seed, images) -> (N,) booleans; with it, the bootstrap draws test
    images beside seeds. resamples: 0 leaves out bands and `needed`. other_recipe: arms whose recipe is not the baseline's:
    it is said of them that their gap is not quantization's alone. Raises ValueError for impossible options only.
    """
    rules = Rules(
        tuple(dict.fromkeys(arms)), baseline, margin, slope_margin, chance, other_recipe=tuple(other_recipe)
    )
    near = chance + rules.near_chance
    pairs = {
        arm: pair(records, arm=arm, baseline=baseline, above=near, correctness=correctness)
        for arm in rules.arms
    }
    return judge(pairs, rules, resamples=resamples, mixed=mixed)


def judge(
    pairs: dict[str, Pairs], rules: Rules, *, resamples: int = 2000, mixed: bool = True
) -> dict[str, DataVolume]:
    """The verdicts on trials that are paired already; by arm."""
    found = {arm: _measure(arm, pairs[arm], rules, resamples, mixed) for arm in rules.arms}
    p = np.column_stack([result.tests["p"] for result in found.values()])  # (tests, arms)
    adjusted = dict(zip(found, np.apply_along_axis(holm, 1, p).T, strict=True))
    return {
        arm: _decide(replace(result, tests=result.tests.assign(holm=adjusted[arm])))
        for arm, result in found.items()
    }


def _measure(arm: str, pairs: Pairs, rules: Rules, resamples: int, mixed: bool) -> DataVolume:
    """All numbers of one arm, before it is known what the other arms' tests say."""
    seeds, sizes = pairs.gap.shape
    notes = [*pairs.notes]
    slopes = trend(pairs.images, pairs.gap) if seeds and sizes > 1 else np.array([])
    last = pairs.gap[:, -1] if sizes else np.array([])
    slope, gap = estimate(slopes), estimate(last)
    strictest = rules.alpha / len(rules.arms)  # what Holm asks of the first of them
    third, random = mixed_model(pairs, notes) if mixed and slope else (None, "")
    p = {
        "slope": slope.p if slope else np.nan,
        "slope_equivalent": equivalent(slopes, rules.slope_margin),
        "gap_equivalent": equivalent(last, rules.margin),
        "sign_flip": sign_flip(slopes),
        "mixed": third.p if third else np.nan,
    }
    draws = resampled(pairs, resamples) if resamples and slope else None
    table, slope_band = pairs.table.copy(), None
    if draws is not None:
        gaps = draws[:, 0] - draws[:, 1]  # (B, K)
        table.loc[table["kept"], ["band_low", "band_high"]] = np.column_stack(band(gaps, seeds))
        low, high = band(trend(pairs.images, gaps), seeds)
        slope_band = (float(low), float(high))
    return DataVolume(
        arm=arm,
        verdict="inconclusive",
        sentence="",
        rules=rules,
        seeds=seeds,
        slope=slope,
        gap=gap,
        tests=pd.DataFrame({"p": p}),
        mixed=third,
        mixed_random=random,
        slope_band=slope_band,
        smallest_slope=smallest_effect(float(slopes.std(ddof=1)), seeds, strictest, rules.power)
        if slope
        else None,
        slopes=pd.Series(slopes, index=pairs.seeds[: len(slopes)], name="slope"),
        gaps=table,
        scales=scales(pairs, notes),
        needed=needed(pairs, draws) if draws is not None else pd.DataFrame(),
        basis=f"Measured on {pairs.measured_on}; bands by a bootstrap over seeds"
        + (" alone." if pairs.correct is None else f" and {pairs.correct.shape[-1]:,} images."),
        notes=(*notes, *_limits(pairs, slopes, rules)),
    )


def _limits(pairs: Pairs, slopes: Floats, rules: Rules) -> list[str]:
    """What cannot be said, or not as it seems."""
    seeds, sizes = pairs.gap.shape
    notes = []
    if sizes < 2:
        notes.append(f"a slope needs two sizes, but {sizes or 'none'} can be compared")
    if seeds < 2:
        notes.append(f"an interval needs two paired seeds, but there is {seeds or 'none'}")
    if seeds < 2 or sizes < 2:
        return notes
    if estimate(slopes) is None:
        notes.append("the slopes of all seeds are equal: there is no noise to measure them by")
    gap = estimate(pairs.gap[:, -1])
    if gap is None:
        notes.append(
            "the gaps of all seeds at the largest size are equal: there is no noise to measure them by"
        )
    elif gap.high < 0:
        notes.append(
            f"at the largest size the arm is ahead of {rules.baseline}: the gap is below 0, and so is its shrinking"
        )
    if (least := 2.0 ** (1 - seeds)) > rules.alpha / len(rules.arms):
        needs = f"p = {rules.alpha / len(rules.arms):.3g} that Holm over {len(rules.arms)} asks of the first"
        notes.append(
            f"sign flips of {seeds} seeds cannot get below p = {least:.2g}, and so not to the {needs}"
        )
    if (most := 1 - 2.0 ** (1 - seeds)) < paired.CONFIDENCE:
        notes.append(
            f"bootstrap bands of {seeds} seeds are too narrow: all their range holds the truth {100 * most:.0f} % of times"
        )
    bend = estimate(trend(pairs.images, pairs.gap, degree=2)) if sizes > 2 else None
    if bend and bend.p < rules.alpha:
        notes.append("the gap is not a straight line in log D: the slope is its average trend")
    return notes


def _decide(found: DataVolume) -> DataVolume:
    """The verdict and its sentence, once the tests are adjusted."""
    rules, p = found.rules, found.tests["holm"]
    verdict, notes = "inconclusive", [*found.notes]
    if found.slope:
        if p["slope_equivalent"] < rules.alpha:
            verdict = "constant"
        elif p["slope"] < rules.alpha:
            below = "closes" if p["gap_equivalent"] < rules.alpha else "shrinks"
            verdict = "grows" if found.slope.value > 0 else below
        for test, name in (("sign_flip", "sign flips do"), ("mixed", "mixed model does")):
            if np.isfinite(p[test]) and (p["slope"] < rules.alpha) != (p[test] < rules.alpha):
                notes.append(
                    f"the {name} not agree with t on the slope: p = {p[test]:.2g} against {p['slope']:.2g}"
                )
        for scale in found.scales.itertuples():
            if scale.slope_low * scale.slope_high > 0 and scale.slope * found.slope.value < 0:
                notes.append(f"in {scale.scale} the slope has the other sign")
    found = replace(found, verdict=verdict, notes=tuple(notes))
    return replace(found, sentence=_sentence(found))


def _sentence(found: DataVolume) -> str:
    rules, slope, gap, p = found.rules, found.slope, found.gap, found.tests["holm"]
    the_gap = f"the gap to {named(rules.baseline)}"
    if found.arm in rules.other_recipe:
        the_gap += ", in recipe and quantization together,"
    meaning = {
        "constant": f"{the_gap} stays the same, within {_points(rules.slope_margin)} a decade of images",
        "closes": f"{the_gap} closes with data",
        "shrinks": f"{the_gap} shrinks with data, but is not shown to close",
        "grows": f"{the_gap} grows with data",
        "inconclusive": f"whether {the_gap} depends on the volume of data cannot be said",
    }[found.verdict]
    said = f"{found.arm}: {found.verdict}: {meaning}"
    if slope is None:
        return f"{said}: {'; '.join(found.notes)}."
    decades = f"it changes by {100 * slope.value:+z.1f} points a decade ({100 * slope.low:+z.1f} to {100 * slope.high:+z.1f}"
    tests = f"{found.seeds} seeds, p = {p['slope']:.2g} by t, {p['sign_flip']:.2g} by sign flips"
    tests += f", {p['mixed']:.2g} by a mixed model" if found.mixed else ""
    said += f"; {decades}; {tests})"
    if gap:
        largest = found.gaps.loc[found.gaps["kept"], "images"].max()
        said += f" and is {100 * gap.value:z.1f} points at {largest:,} images ({100 * gap.low:z.1f} to {100 * gap.high:z.1f})"
    if found.verdict == "inconclusive":
        smallest = 100 * (found.smallest_slope or np.nan)
        said += f"; a slope of {smallest:.1f} would have been found with {100 * rules.power:g} % power"
    return said + "."


def named(arm: str) -> str:
    """An arm's name within a sentence."""
    return f'"{arm}"' if "," in arm else arm


def _points(share: float) -> str:
    return f"{100 * share:g} point" + "s" * (share != 0.01)
