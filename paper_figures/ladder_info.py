"""What a figure of the ladder shows, in print (`fig_ladder`) and on the report page."""

from dataclasses import dataclass

import pandas as pd

IN_PERCENT = ["mean", "low", "high", "gain", "gain_low", "gain_high", "cost", "cost_low", "cost_high"]


@dataclass(frozen=True)
class LadderInfo:
    """Accuracy rung by rung.

    Args:
        rungs: A row a rung that has a paired trial, the base first (rung, mean, low, high, gain, gain_low,
            gain_high, cost, cost_low, cost_high, gain_clear, cost_clear); accuracies in percent, gains and
            costs in points. Clear (bool) are those whose interval excludes 0.
        seeds: Accuracies of the seeds in percent, by rung.
        reference: The rung that is no step of the ladder, if any.
    """

    rungs: pd.DataFrame
    seeds: dict[str, "pd.Series[float]"]
    reference: str | None


def ladder_info(rungs: pd.DataFrame, seeds: pd.DataFrame, reference: str | None = None) -> LadderInfo:
    """Compute what a figure shows.

    Args:
        rungs: The table of `analysis.paired.ladder`, the base first; shares.
        seeds: (seeds, cells) accuracies, as `analysis.paired.by_seed` returns them; shares.
        reference: The rung that is no step of the ladder, if any.
    """
    known = rungs.dropna(subset="mean")
    in_percent = known[["rung"]].assign(**{name: 100 * known[name] for name in IN_PERCENT})
    for name in ("gain", "cost"):
        in_percent[f"{name}_clear"] = (known[f"{name}_low"] > 0) | (known[f"{name}_high"] < 0)
    return LadderInfo(in_percent, {rung: 100 * seeds[rung].dropna() for rung in known["rung"]}, reference)
