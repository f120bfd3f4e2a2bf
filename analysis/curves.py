"""Error against data volume: the law that fits each arm, with its band, and the law that each gap follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablate.analysis.choice import Choice, choose
from ablate.analysis.curve_tables import band, means, parameters
from ablate.analysis.scaling import Fit, fit
from ablate.analysis.scaling_problem import Refused

ARM_LAWS = ("power", "power_floor")
GAP_LAWS = ("gap_shared", "gap_constant", "gap_free", "gap_floors", "gap_power")
PUBLISHED_LAWS = ("gap_constant", "gap_power")  # of quantization-aware training, see `laws`
LEFT_OUT = (
    "the law of Dremov et al. 2025 (arXiv 2509.22935) is not fitted: it is about how training is divided "
    "between a full-precision phase and a quantized one, and these trials have no full-precision phase"
)
UNIQUE, PROCESSED = "unique images", "images processed"  # what D is
MIN_LENGTHS = 3  # of training, to fit a law in the images processed
NUMBERS = ("images", "error", "low", "high")  # of a band
SAMPLES = 500  # of the bootstrap
HUBER_DELTA = 0.02  # of the log error: about the noise of a seed, so that only outliers count by their size


@dataclass(frozen=True)
class Curves:
    """Error against data volume.

    Attributes:
        laws: a row per law and parameter (arm, law, equation, data (what D is), chosen, rejected and the test
            of lack of fit as in `Choice.table`, parameter, value, low, high by bootstrap, profile_low,
            profile_high by profile likelihood, flags); 95 %, and an end is 0 or infinite where the points do
            not bound it. Where no law is chosen, the row has the closest.
        bands: a row per arm and image count within the measured range (arm, images, error, low, high, law).
            The arm's law with its pointwise 95 % band; or, where that is rejected and `law` is empty, the
            geometric mean of each size with its 95 % t interval over seeds, one by one.
        choices: a row per law and arm, or pair of arms, with the columns of `Choice.table`.
        notes: what the points cannot tell.
    """

    laws: pd.DataFrame
    bands: pd.DataFrame
    choices: pd.DataFrame
    notes: tuple[str, ...]


@dataclass
class _Rows:
    """The rows of `Curves` while they are collected."""

    laws: list[dict[str, Any]] = field(default_factory=list)
    bands: list[pd.DataFrame] = field(default_factory=list)
    choices: list[pd.DataFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def curves(records: pd.DataFrame, *, arms: Sequence[str], baseline: str) -> Curves:
    """Fits each arm's error, and the two curves of each arm and the baseline together.

    Args:
        records: a row per trial: arm, seed, images, steps, processed (images, repetitions included),
            full_epochs (before quantization), error in (0, 1].
        arms: the arms to compare with the baseline.
        baseline: the full-precision arm.

    Returns:
        The fits. Nothing raises: what is refused is in the notes.
    """
    rows = _Rows()
    for arm in (baseline, *arms):
        _fit_arm(rows, arm, records[records["arm"] == arm])
    not_fitted: dict[str, list[str]] = {}  # pairs of arms by the reason
    for arm in arms:
        pair = records[records["arm"].isin([baseline, arm])]
        _fit_pair(rows, arm, baseline, pair)
        if reason := _no_lengths(pair):
            not_fitted.setdefault(reason, []).append(f"{arm} and {baseline}")
        else:
            _fit_published(rows, arm, baseline, pair)
    for reason, pairs in not_fitted.items():
        rows.notes.append(
            f"{', '.join(pairs)}: the published laws of quantization-aware training (Kumar et al. 2024, Chen "
            f"et al. 2025, Dremov et al. 2025), whose D is the images processed, are not fitted: {reason}"
        )
    if any(row["data"] == PROCESSED for row in rows.laws):
        rows.notes.append(LEFT_OUT)
    no_bands = pd.DataFrame(columns=["arm", *NUMBERS, "law"]).astype(dict.fromkeys(NUMBERS, float))
    return Curves(
        laws=pd.DataFrame(rows.laws),
        bands=pd.concat(rows.bands) if rows.bands else no_bands,
        choices=pd.concat(rows.choices) if rows.choices else pd.DataFrame(),
        notes=tuple(rows.notes),
    )


def _fit_arm(rows: _Rows, arm: str, records: pd.DataFrame) -> None:
    """The law of an arm: the chosen one, or else the closest."""
    predictors = {"D": records["images"]}
    choice = _choice(rows, arm, ARM_LAWS, UNIQUE, predictors, records)
    if choice is None:
        return
    fitted = with_intervals(choice.closest, predictors, records)
    rows.laws += parameters(arm, fitted, UNIQUE, choice)
    rejected = choice.table.loc[choice.closest, "rejected"]
    rows.bands.append(means(records) if rejected else band(fitted, records["images"]))
    rows.bands[-1].insert(0, "arm", arm)


def _fit_pair(rows: _Rows, arm: str, baseline: str, records: pd.DataFrame) -> None:
    """The law of the gap, the chosen one or else the closest, and the multiplier of arm and baseline."""
    pair = f"{arm} and {baseline}"
    predictors = {"D": records["images"], "quantized": (records["arm"] == arm).astype(float)}
    choice = _choice(rows, pair, GAP_LAWS, UNIQUE, predictors, records)
    if choice is None:
        return
    for law in ("multiplier", choice.closest):
        rows.laws += parameters(pair, with_intervals(law, predictors, records), UNIQUE, choice)


def _fit_published(rows: _Rows, arm: str, baseline: str, records: pd.DataFrame) -> None:
    """The published laws of quantization-aware training, in the images processed."""
    pair = f"{arm} and {baseline}"
    predictors = {"D": records["processed"], "quantized": (records["arm"] == arm).astype(float)}
    choice = _choice(rows, pair, PUBLISHED_LAWS, PROCESSED, predictors, records)
    if choice is None:
        return
    for law in choice.fits:
        rows.laws += parameters(pair, with_intervals(law, predictors, records), PROCESSED, choice)


def _no_lengths(records: pd.DataFrame) -> str:
    """Why no law in the images processed can be fitted; "" where one can."""
    if records[["steps", "processed", "full_epochs"]].isna().any(axis=None):
        return "how long some trials were trained is not recorded"
    if records["full_epochs"].any():
        return "some trials start from a full-precision phase, which these laws do not have"
    lengths = sorted(records["steps"].unique())
    steps = " or ".join(f"{length:,.0f}" for length in lengths)
    if len(lengths) == 1:
        return f"every trial has {steps} steps"
    if len(lengths) < MIN_LENGTHS:
        return f"every trial has {steps} steps, and {MIN_LENGTHS} lengths of training are needed"
    return ""


def _choice(
    rows: _Rows,
    name: str,
    laws: Sequence[str],
    data: str,
    predictors: dict[str, Any],
    records: pd.DataFrame,
) -> Choice | None:
    """The choice between laws, added to the rows; None, with a note, where none can be fitted."""
    about = name if data == UNIQUE else f"{name}, D {data}"
    try:
        choice = choose(laws, predictors, records["error"], blocks=records["seed"], huber_delta=HUBER_DELTA)
    except Refused as refusal:
        rows.notes.append(f"{about}: {refusal}")
        return None
    table = choice.table.reset_index().assign(arm=name, data=data, best=choice.table.index == choice.best)
    rows.choices.append(table)
    rows.notes += [f"{about}: {doubt}" for doubt in choice.undecided]
    return choice


def with_intervals(law: str, predictors: dict[str, Any], records: pd.DataFrame) -> Fit:
    """The fit of a law to an arm's or a pair's trials.

    Args:
        law: a name in `laws.LAWS`.
        predictors: what it needs, each (n,).
        records: n trials: error, seed.

    Returns:
        The fit, with bootstrap intervals.
    """
    return fit(
        law,
        predictors,
        records["error"],
        blocks=records["seed"],
        huber_delta=HUBER_DELTA,
        samples=SAMPLES,
    )
