"""The verdict on one arm: what it rests on, how it is decided, and the sentence that says it."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ablate.analysis.t_interval import Estimate
from ablate.analysis.verdict_rules import Rules, points, quoted


@dataclass(frozen=True, eq=False)
class DataVolume:
    """How an arm's gap to the baseline depends on the volume of data. The notes say what is missing, and why.

    Attributes:
        arm: the arm.
        verdict: one of those that `VERDICTS` defines. "shrinks" does not say that the gap stays open, only
            that its closing is not shown.
        sentence: the verdict in words.
        rules: the limits and margins.
        seeds: number of paired seeds.
        slope: of the gap per decade of images; its interval and p are not adjusted for other arms.
        gap: at the largest size.
        tests: a row per test (slope, slope_equivalent, gap_equivalent, sign_flip, mixed): `p`, and `holm`
            over the arms.
        mixed: the slope by a mixed model.
        mixed_random: what is random over seeds in it: "intercept and slope", "intercept", "nothing"; ""
            without one.
        slope_band: bootstrap interval of the slope.
        smallest_slope: the slope that this design detects with `rules.power`, by the SD of its slopes, at the
            strictest level of Holm.
        slopes: by seed.
        gaps: a row per size: mean accuracies, gap with t interval (low, high) and bootstrap band.
        scales: slope and gap in accuracy, logits, log error ratio and loss, above 0 where the arm is worse.
        needed: a row per size: how many times the data the arm needs.
        basis: the split that was measured on, and what the bootstrap drew.
        notes: what is missing or doubtful.
    """

    arm: str
    verdict: str
    sentence: str
    rules: Rules
    seeds: int
    slope: Estimate | None
    gap: Estimate | None
    tests: pd.DataFrame
    mixed: Estimate | None
    mixed_random: str
    slope_band: tuple[float, float] | None
    smallest_slope: float | None
    slopes: "pd.Series[float]"
    gaps: pd.DataFrame
    scales: pd.DataFrame
    needed: pd.DataFrame
    basis: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        notes = [f"Note: {note}." for note in self.notes]
        return "\n".join([self.sentence, str(self.rules), self.basis, *notes])


def decide(result: DataVolume) -> DataVolume:
    """The result with its verdict and sentence.

    Args:
        result: an arm's measurements, its `tests` with the column `holm`.

    Returns:
        A copy with `verdict`, `sentence`, and a note on each test and scale that disagrees with the slope's t
        test.
    """
    notes = result.notes if result.slope is None else (*result.notes, *_disagreements(result, result.slope))
    result = replace(result, verdict=_verdict(result), notes=notes)
    return replace(result, sentence=_sentence(result))


def _verdict(result: DataVolume) -> str:
    p, alpha = result.tests["holm"], result.rules.alpha
    if result.slope is None:
        return "inconclusive"
    if p["slope_equivalent"] < alpha:
        return "constant"
    if not p["slope"] < alpha:
        return "inconclusive"
    if result.slope.value > 0:
        return "grows"
    return "closes" if p["gap_equivalent"] < alpha else "shrinks"


def _disagreements(result: DataVolume, slope: Estimate) -> list[str]:
    """The tests that decide otherwise than t, and the scales on which the slope has the opposite sign."""
    p, alpha = result.tests["holm"], result.rules.alpha
    notes = [
        f"the {name} not agree with t on the slope: p = {p[test]:.2g} against {p['slope']:.2g}"
        for test, name in (("sign_flip", "sign flips do"), ("mixed", "mixed model does"))
        if np.isfinite(p[test]) and (p["slope"] < alpha) != (p[test] < alpha)
    ]
    for scale in result.scales.itertuples():
        if scale.slope_low * scale.slope_high > 0 and scale.slope * slope.value < 0:
            notes.append(f"on the scale of {scale.scale} the slope has the opposite sign")
    return notes


def _sentence(result: DataVolume) -> str:
    rules, gap = result.rules, result.gap
    the_gap = f"the gap to {quoted(rules.baseline)}"
    if result.arm in rules.other_recipe:
        the_gap += ", in recipe and quantization together,"
    meaning = {
        "constant": f"{the_gap} stays the same, within {points(rules.slope_margin)} per decade of images",
        "closes": f"{the_gap} closes with data",
        "shrinks": f"{the_gap} shrinks with data, but is not shown to close",
        "grows": f"{the_gap} grows with data",
        "inconclusive": f"the trials do not show whether {the_gap} depends on the volume of data",
    }[result.verdict]
    start = f"{result.arm}: {result.verdict}: {meaning}"
    if result.slope is None:
        return f"{start}: {'; '.join(result.notes)}."
    parts = [start, f"it changes by {_slope(result, result.slope)}"]
    if gap:
        largest = result.gaps.loc[result.gaps["kept"], "images"].max()
        interval = f"{100 * gap.low:z.1f} to {100 * gap.high:z.1f}"
        parts.append(f"at {largest:,} images it is {100 * gap.value:z.1f} points ({interval})")
    if result.verdict == "inconclusive":
        smallest = 100 * (result.smallest_slope or np.nan)
        power = f"{100 * rules.power:g} %"
        parts.append(f"a slope of {smallest:.1f} points would have been found with a power of {power}")
    return f"{'; '.join(parts)}."


def _slope(result: DataVolume, slope: Estimate) -> str:
    """The slope, its interval and its tests, in words."""
    p = result.tests["holm"]
    tests = [f"p = {p['slope']:.2g} by t", f"{p['sign_flip']:.2g} by sign flips"]
    tests += [f"{p['mixed']:.2g} by a mixed model"] if result.mixed else []
    interval = f"{100 * slope.low:+z.1f} to {100 * slope.high:+z.1f}"
    seeds = f"{result.seeds} seeds"
    return f"{100 * slope.value:+z.1f} points per decade ({interval}; {seeds}, {', '.join(tests)})"
