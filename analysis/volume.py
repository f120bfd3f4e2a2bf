"""Two arms over the volume of training data, paired on the seed: what can be compared, its bands, the data that is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ablate.analysis import paired
from ablate.analysis.over_seeds import Floats, estimate

Correctness = Mapping[
    tuple[str, Any, int], ArrayLike
]  # (arm, seed, images) -> (N,) booleans, of the same N images
FURTHEST = 10  # times the largest size: a line drawn further than that says nothing


@dataclass(frozen=True, eq=False)
class Pairs:
    """The trials that both arms have: S seeds, K sizes. The arrays' first axis is (baseline, arm)."""

    images: NDArray[np.int64]  # (K,) ascending
    seeds: list[Any]
    accuracy: Floats  # (2, S, K)
    loss: Floats | None  # (2, S, K)
    correct: NDArray[np.float32] | None  # (2, S, K, N)
    table: pd.DataFrame  # a row a size, those left out too
    measured_on: str
    notes: tuple[str, ...]

    @property
    def gap(self) -> Floats:
        """(S, K), above 0 where the baseline is better."""
        return self.accuracy[0] - self.accuracy[1]


def pair(
    records: pd.DataFrame, *, arm: str, baseline: str, above: float, correctness: Correctness | None = None
) -> Pairs:
    """What two arms have in common: sizes at which the baseline's mean is above a limit, seeds that have them all.

    records: a row a trial. Nothing raises: what had to be left out is in the notes.
    """
    notes: list[str] = []
    rows, measured_on = _clean(records, (baseline, arm), notes)
    both = [
        rows[rows["arm"] == name].pivot(index="seed", columns="images", values="accuracy")
        for name in (baseline, arm)
    ]
    losses = [
        rows[rows["arm"] == name].pivot(index="seed", columns="images", values="loss")
        for name in (baseline, arm)
    ]
    sizes = both[0].columns.intersection(both[1].columns).sort_values()
    if lone := [f"{size:,}" for size in sorted({*both[0].columns, *both[1].columns} - {*sizes})]:
        notes.append(f"left out: {' and '.join(lone)} images, which only one arm has")
    means = both[0][sizes].mean()
    kept = sizes[(means > above).to_numpy(dtype=bool)]
    for size in sizes.difference(kept):
        notes.append(
            f"left out: {size:,} images, where {baseline} itself is near chance ({100 * means[size]:.1f} %)"
        )
    seeds = both[0][kept].dropna().index.intersection(both[1][kept].dropna().index)
    if lost := sorted(map(str, {*both[0].index, *both[1].index} - {*seeds})):
        notes.append(
            f"left out: {'seeds' if len(lost) > 1 else 'seed'} {', '.join(lost)}, of which a trial is missing"
        )
    accuracy, loss = (
        np.stack([table.loc[seeds, kept].to_numpy(float) for table in tables]) for tables in (both, losses)
    )
    return Pairs(
        images=kept.to_numpy(dtype=np.int64),
        seeds=list(seeds),
        accuracy=accuracy,
        loss=loss if np.isfinite(loss).all() else None,
        correct=_correct(correctness, [baseline, arm], seeds, kept, accuracy, notes)
        if correctness is not None
        else None,
        table=pd.DataFrame(
            [_row(size, size in kept, *(t.loc[seeds, size] for t in both)) for size in sizes], columns=[*ROW]
        ),
        measured_on=measured_on,
        notes=tuple(notes),
    )


ROW = (
    "images",
    "kept",
    "seeds",
    "accuracy_baseline",
    "accuracy_arm",
    "gap",
    "low",
    "high",
    "band_low",
    "band_high",
)


def _row(size: int, kept: bool, baseline: pd.Series, arm: pd.Series) -> dict[str, Any]:
    gap = (baseline - arm).dropna().to_numpy(float)
    found = estimate(gap)
    centre = gap.mean() if len(gap) else np.nan
    low, high = found[1:3] if found else (np.nan, np.nan)
    return dict(
        zip(
            ROW,
            (size, kept, len(gap), baseline.mean(), arm.mean(), centre, low, high, np.nan, np.nan),
            strict=True,
        )
    )


def _clean(records: pd.DataFrame, arms: Sequence[str], notes: list[str]) -> tuple[pd.DataFrame, str]:
    """The complete trials of some arms, in plain numbers: arm, seed, images, accuracy, loss; and on which split."""
    empty = pd.DataFrame(columns=["arm", "seed", "images", "accuracy", "loss"])
    if absent := [column for column in ("arm", "seed", "images", "accuracy") if column not in records]:
        notes.append(f"there are no records with {', '.join(absent)}")
        return empty, "nothing"
    rows = records[records["arm"].isin(arms)]
    if "role" in rows:  # a design's table: its tuning trials are not paired
        rows = rows[rows["role"] == "seed"]
    if "status" in rows:
        rows = rows[rows["status"] == "complete"]
    tested = {
        name: f"test_{name}" in rows and rows[f"test_{name}"].notna().all() for name in ("accuracy", "loss")
    }
    found = {name: rows.get(f"test_{name}" if tested[name] else name) for name in tested}
    rows = rows.assign(**found)[[*empty]].reset_index(drop=True)
    rows[["images", "accuracy", "loss"]] = rows[["images", "accuracy", "loss"]].apply(
        pd.to_numeric, errors="coerce"
    )
    sound = rows["seed"].notna() & rows["images"].between(1, 1e15) & rows["accuracy"].between(0, 1)
    if not sound.all():
        notes.append(f"left out: {(~sound).sum()} trials without seed, images or an accuracy in [0, 1]")
    rows = rows[sound].astype({"images": int}).drop_duplicates(["arm", "seed", "images", "accuracy"])
    if rows.duplicated(["arm", "seed", "images"]).any():
        notes.append(
            "several trials share arm, seed and images but not their accuracy: give the trials of one design only"
        )
        return empty, "nothing"
    notes += [
        f"there is no complete trial of {name}"
        for name in dict.fromkeys(arms)
        if not (rows["arm"] == name).any()
    ]
    return rows, "the test set" if tested["accuracy"] else "the validation set"


def _correct(
    correctness: Correctness,
    arms: Sequence[str],
    seeds: Sequence[Any],
    sizes: Sequence[int],
    accuracy: Floats,
    notes: list[str],
) -> NDArray[np.float32] | None:
    """(2, S, K, N); None, with a note, where it is not whole or does not belong to the accuracies."""
    try:
        found = np.array(
            [[[correctness[arm, seed, size] for size in sizes] for seed in seeds] for arm in arms], np.float32
        )
        if found.size and np.abs(found.mean(axis=3) - accuracy).max() < 1e-4:
            return found
        notes.append("the images are not resampled: their correctness does not give the accuracies")
    except (KeyError, ValueError, TypeError):
        notes.append(
            "the images are not resampled: their correctness is not there for each trial and the same images"
        )
    return None


def trend(images: ArrayLike, gaps: Floats, degree: int = 1) -> Floats:
    """(S,) the leading coefficient of each seed's least-squares polynomial in log10 D; gaps (S, K)."""
    return np.polyfit(np.log10(images), gaps.T, degree)[0]


def resampled(pairs: Pairs, resamples: int, seed: int = 0) -> Floats:
    """(resamples, 2, K): mean accuracies after drawing seeds, and test images where they are known, with replacement.

    Seeds and images are crossed and drawn independently, each draw's images the same for all trials (Owen 2007,
    "The pigeonhole bootstrap").
    """
    random = np.random.default_rng(seed)
    n = len(pairs.seeds)
    drawn = random.multinomial(n, np.full(n, 1 / n), resamples) / n  # (B, S)
    if pairs.correct is None:
        return np.einsum("bs,ask->bak", drawn, pairs.accuracy)
    images = pairs.correct.shape[-1]
    found = np.empty((resamples, 2, len(pairs.images)))
    for i in range(resamples):
        weights = (
            np.bincount(random.integers(images, size=images), minlength=images).astype(np.float32) / images
        )  # (N,)
        found[i] = drawn[i] @ (pairs.correct @ weights)  # (S,) @ (2, S, K)
    return found


def band(draws: Floats, seeds: int) -> tuple[Floats, Floats]:
    """The 95 % interval of bootstrap draws (B, ...) of few seeds: percentiles, expanded to what t would have."""
    wide = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf((1 + paired.CONFIDENCE) / 2, seeds - 1)
    tail = stats.norm.cdf(-wide)  # Hesterberg 2015, arXiv 1411.5279, "expanded percentile"
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high


def needed(pairs: Pairs, draws: Floats) -> pd.DataFrame:
    """A row a size D: the images with which the arm reaches the baseline's accuracy at D, and how many times D that is.

    draws: as `resampled` gives. `times` and its interval lie on straight lines in log D between the sizes; where the arm
    does not reach it, `times` is NaN, `high` is infinite and `extrapolated` follows the last two sizes, if they rise.
    """
    x, (goal, curve) = np.log10(pairs.images), pairs.accuracy.mean(axis=1)
    reached = _reach(x, goal, curve)  # (K,)
    low, high = band(_reach(x, draws[:, 0], draws[:, 1]), len(pairs.seeds))
    rise = (curve[-1] - curve[-2]) / (x[-1] - x[-2])
    beyond = x[-1] + (goal - curve[-1]) / rise if rise > 0 else np.full(len(x), np.inf)
    rows = []
    for i, size in enumerate(pairs.images):
        row = {"images": size, "times": 10 ** (reached[i] - x[i]) if np.isfinite(reached[i]) else np.nan}
        row |= {"low": 10 ** (min(low[i], x[-1]) - x[i]), "high": 10 ** (max(high[i], x[0]) - x[i])}
        near = reached[i] == np.inf and beyond[i] - x[-1] <= np.log10(FURTHEST)
        row["extrapolated"] = 10 ** (beyond[i] - x[i]) if near else np.nan
        interval = f"(x{row['low']:.2g} to {'unbounded' if np.isinf(row['high']) else 'x{:.2g}'.format(row['high'])})"
        if np.isfinite(reached[i]):
            text = f"x{row['times']:.2g}"
        elif reached[i] < 0:
            text = f"<= {pairs.images[0]:,} images"
        else:
            further = f"extrapolated x{row['extrapolated']:.2g}" if near else "too far to extrapolate"
            text = f"> {pairs.images[-1]:,} images, {further}"
        rows.append(row | {"text": f"{text} {interval}"})
    return pd.DataFrame(rows)


def _reach(x: Floats, goal: Floats, curve: Floats) -> Floats:
    """log10 of the images with which curves (..., K) reach each goal (..., K); -inf: the fewest do, inf: the most do not."""
    best = np.maximum.accumulate(curve, axis=-1)
    after = (best[..., None, :] < goal[..., None]).sum(axis=-1)  # (..., K)
    right = after.clip(1, len(x) - 1)
    y0, y1 = np.take_along_axis(best, right - 1, -1), np.take_along_axis(best, right, -1)
    share = np.divide(goal - y0, y1 - y0, out=np.zeros_like(y0), where=y1 > y0)
    inside = x[right - 1] + share * (x[right] - x[right - 1])
    return np.where(after == 0, -np.inf, np.where(after == len(x), np.inf, inside))
