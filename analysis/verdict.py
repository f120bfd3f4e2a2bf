"""The verdict on one arm: what it rests on, how it is decided, and the sentence that says it."""

from dataclasses import dataclass, replace

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
        changes: what the verdict is read from, as `segments.changes` returns it.
        slope: the average change of the gap per decade of images, with an interval of its own: it describes
            and decides nothing.
        slopes: by seed.
        gaps: a row per size: mean accuracies, and the gap with an interval (low, high); the intervals of all
            kept sizes of all arms are simultaneous.
        scales: slope and gap in accuracy, logits, log error ratio and loss, above 0 where the arm is worse.
        needed: a row per size: how many times the data the arm needs.
        basis: the split that was measured on, and what the intervals cover.
        notes: what is missing or doubtful.
    """

    arm: str
    verdict: str
    sentence: str
    rules: Rules
    seeds: int
    changes: pd.DataFrame
    slope: Estimate | None
    slopes: "pd.Series[float]"
    gaps: pd.DataFrame
    scales: pd.DataFrame
    needed: pd.DataFrame
    basis: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        notes = [f"Note: {note}." for note in self.notes]
        return "\n".join([self.sentence, str(self.rules), self.basis, *notes])

    @property
    def by_contrast(self) -> pd.DataFrame:
        """The rows of `changes` that the verdict is read from: first, second, whole, bend and gap."""
        return self.changes[self.changes["contrast"] != "between"].set_index("contrast")


def decide(result: DataVolume) -> DataVolume:
    """A copy of the result with its verdict and sentence."""
    result = replace(result, verdict=_verdict(result))
    return replace(result, sentence=_sentence(result))


def _verdict(result: DataVolume) -> str:
    if result.changes.empty:
        return "inconclusive"
    rows = result.by_contrast
    shows, second, gap = rows["shows"], rows.loc["second"], rows.loc["gap"]
    segments = {shows["first"], shows["second"]}
    whole, none = shows["whole"], max(-gap["low"], gap["high"]) < gap["margin"]
    if whole == "falls" and none and "rises" not in segments and second["high"] < second["margin"]:
        return "closes"
    if {"falls", "rises"} <= segments:
        return "bent"
    goes_on = whole == shows["second"] and whole in ("falls", "rises")
    if not goes_on and shows["bend"] == "bends":
        return "bent"
    if whole == "falls" and (goes_on or second["high"] < second["margin"]):
        return "shrinks"
    if whole == "rises" and (goes_on or second["low"] > -second["margin"]):
        return "grows"
    changes = result.changes[~result.changes["contrast"].isin(["gap", "bend"])]
    return "constant" if (changes["shows"] == "stays").all() else "inconclusive"


def _sentence(result: DataVolume) -> str:
    rules, baseline = result.rules, quoted(result.rules.baseline)
    the_gap = f"the gap to {baseline}"
    if result.arm in rules.other_recipe:
        the_gap += ", in recipe and quantization together,"
    meaning = {
        "constant": f"{the_gap} stays the same, within {points(rules.slope_margin)} per decade of images",
        "closes": f"{the_gap} closes with data",
        "shrinks": f"{the_gap} shrinks with data, but is not shown to close",
        "grows": f"{the_gap} grows with data",
        "bent": f"{the_gap} changes otherwise with few data than with many",
        "inconclusive": f"what {the_gap} does with data is not shown over the whole range",
    }[result.verdict]
    rows = result.by_contrast
    if rows.empty:
        meaning = f"the trials do not suffice to say what {the_gap} does with data"
    if len(rows) and rows.loc["gap", "shows"] == "ahead" and result.verdict in ("shrinks", "grows"):
        gains = "gains on" if result.verdict == "shrinks" else "falls back towards"
        meaning = f"the arm {gains} {baseline} with data, and is ahead of it at the largest size"
    start = f"{result.arm}: {result.verdict}: {meaning}"
    if result.changes.empty:
        return f"{start}: {'; '.join(result.notes)}."
    parts = [start, *(_change(rows.loc[name]) for name in ("first", "second"))]
    parts.append(f"{_points(rows.loc['whole'], '+')} in all")
    parts.append(f"at {rows.loc['gap', 'to_images']:,} images it is {_points(rows.loc['gap'])}")
    if result.verdict == "inconclusive":
        smallest = [f"{100 * rows.loc[name, 'smallest']:.1f}" for name in ("first", "second", "whole")]
        found = f"{smallest[0]} and {smallest[1]} points over the segments, and of {smallest[2]} in all"
        parts.append(f"changes of {found}, would be told from 0 with a power of {100 * rules.power:g} %")
    return f"{'; '.join(parts)}."


def _change(row: pd.Series) -> str:
    """What the gap does over a segment: "it falls by ..." only where its interval shows it."""
    verb = {"falls": "it falls", "rises": "it rises", "stays": "it stays", "": "no change is shown"}[
        row["shows"]
    ]
    return f"from {row['from_images']:,} to {row['to_images']:,} images {verb}: {_points(row, '+')}"


def _points(row: pd.Series, sign: str = "") -> str:
    """A value and its interval in points: "+1.2 points (0.3 to 2.1)"."""
    value, low, high = (f"{100 * row[name]:{sign}z.1f}" for name in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"
