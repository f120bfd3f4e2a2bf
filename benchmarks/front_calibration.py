"""How far the probabilities, the band and the sizes of a front can be trusted: runs with known truth.

    python benchmarks/front_calibration.py                # 1,000 runs of each kind, ten minutes of a core

Assumed, as in the committed runs on CIFAR-10: accuracies with an SD of 1.8 points between seeds, half of its
variance shared by the trials of one seed, normal; with images, 1,000 of them, alike for all trials, of random
difficulty. A front has six sizes, each twice the one before. Counts do not depend on hardware.

`probabilities`: of two equal points, how often at least one is said to be on the front with .95 or more,
nominally .10; and of larger sets, how often a point that is not on the front is said to be so with .95 or
more, nominally at most .05. `plain_bootstrap` is the same by a bootstrap of seeds that is not corrected.
`coverage`: how often the band covers the truth, the mean over sizes and the worst size, and the intervals of
the knee and of the size within 1 point; `knee_open` is how often that of the knee is open, and those of two
seeds are not given. `plain_percentile` is a band by a bootstrap of the seeds, widened (Hesterberg 2015).
`chosen`: how far a fitted curve is above the truth if it is fitted to the front's own trials or to fresh
seeds of its members, in a search of 300 settings with one seed.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ablate.analysis import fitted_front, front_uncertainty, pareto
from ablate.analysis.mean_draws import draw_means
from ablate.analysis.seed_bootstrap import percentile_interval
from ablate.runs.provenance import provenance

SD, SEEDS, IMAGES, SAMPLES = 0.018, (2, 3, 5, 10), 1000, 500
IMAGE_SD = 0.6  # of an image's difficulty, in probits
SIZES = 5e5 * 2.0 ** np.arange(6)
WAYS = ("max", "min")
FRONTS = {  # accuracies at SIZES
    "bends": 0.60 - 0.12 * np.exp(-np.arange(6) / 1.2),
    "line": np.linspace(0.48, 0.60, 6),
    "step": np.array([0.50, 0.50, 0.58, 0.58, 0.60, 0.60]),
    "flat": np.full(6, 0.60),
}
POINTS = {  # accuracies and costs of sets of points
    "six equal points of equal cost": (np.full(6, 0.6), np.ones(6)),
    "six equal points, each dearer": (np.full(6, 0.6), np.arange(6.0)),
    "steps of 1 point, each dearer": (0.55 + 0.01 * np.arange(6), np.arange(6.0)),
    "every second is 1 point below the last": (0.55 + 0.01 * np.array([0, -1, 2, 1, 4, 3]), np.arange(6.0)),
}


def draw(random: np.random.Generator, means: np.ndarray, seeds: int, images: int | None) -> np.ndarray:
    """(n, seeds, images or 1) scores whose expected means are these (n,)."""
    shared, own = random.normal(size=(1, seeds)), random.normal(size=(len(means), seeds))
    noise = (shared + own) / np.sqrt(2)  # (n, S), in SD
    if images is None:
        return (means[:, None] + SD * noise)[..., None]
    inside = np.sqrt(1 + IMAGE_SD**2)  # per image, in probits
    spread = SD * inside / stats.norm.pdf(stats.norm.ppf(means))  # (n,) of the seeds, in probits
    middle = stats.norm.ppf(means) * np.sqrt(inside**2 + spread**2)
    ability = middle[:, None] + spread[:, None] * noise
    difficulty = IMAGE_SD * random.normal(size=images)
    return (ability[..., None] + difficulty + random.normal(size=(*noise.shape, images)) > 0).astype(float)


def plain_draws(scores: np.ndarray, samples: int, seed: int = 0) -> np.ndarray:
    """(B, n) as `draw_means`, but seeds too are drawn with replacement."""
    random, seeds = np.random.default_rng(seed), scores.shape[1]
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), samples) / seeds  # (B, S)
    around = draw_means(scores.mean(axis=1, keepdims=True), samples, seed)  # (B, n), images alone
    by_seed = scores.mean(axis=2)
    return around + weights @ (by_seed - by_seed.mean(axis=1, keepdims=True)).T


def probability(
    scores: np.ndarray, costs: np.ndarray, seed: int, draws: Callable[..., np.ndarray] = draw_means
) -> np.ndarray:
    """(n,) as `pareto.front_probability` with these draws, where no two points are equal."""
    drawn = draws(scores, SAMPLES, seed)
    others = ~np.eye(len(costs), dtype=bool)
    rivals = (costs <= costs[:, None]) & others  # (n, n)
    best = np.where(rivals, drawn[:, None], -np.inf).max(axis=2)  # (B, n) of those that cost no more
    return (drawn > best).mean(axis=0)


def two_equal(seeds: int, images: int | None, runs: int) -> dict[str, float]:
    """How often one of two equal points has a probability of .95 or more, by both kinds of draws."""
    random, found = np.random.default_rng(seeds), []
    for i in range(runs):
        scores = draw(random, np.full(2, 0.6), seeds, images)
        both = [probability(scores, np.ones(2), i, draws).max() for draws in (draw_means, plain_draws)]
        found.append(both)
    t, plain = (np.array(found) >= 0.95).mean(axis=0)
    return {"t": float(t), "plain_bootstrap": float(plain)}


def many(name: str, seeds: int, runs: int) -> dict[str, float]:
    """How often points off the front have .95 or more, and points on it .05 or less."""
    accuracies, costs = POINTS[name]
    alike = len(set(zip(accuracies, costs, strict=True))) == 1  # each is tied: none is better
    on = np.isin(np.arange(6), [] if alike else pareto.front(np.column_stack([accuracies, costs]), WAYS))
    random = np.random.default_rng(seeds)
    found = np.array([probability(draw(random, accuracies, seeds, None), costs, i) for i in range(runs)])
    result = {"off_the_front_above_95": float((found[:, ~on] >= 0.95).mean()) if not on.all() else None}
    return result | {"on_the_front_below_05": float((found[:, on] <= 0.05).mean()) if on.any() else None}


def coverage(name: str, seeds: int, images: int | None, runs: int) -> dict[str, Any]:
    """How often the band at each size, and the intervals of the knee and of the size within 1 point, hold."""
    truth, random = FRONTS[name], np.random.default_rng(seeds)
    true = pareto.fit(SIZES, truth)
    band, plain, knee, within, open_knees = [], [], [], [], 0  # the sizes are not given for two seeds
    for i in range(runs):
        scores = draw(random, truth, seeds, images)
        found = pareto.fit(SIZES, scores, samples=SAMPLES, seed=i)
        rows = found.curve.iloc[np.searchsorted(found.curve["size"], SIZES * (1 - 1e-9))]
        band.append((rows["low"] <= truth + 1e-9) & (truth <= rows["high"] + 1e-9))
        curves = np.array(
            [fitted_front.isotonic_regression(row).x for row in plain_draws(scores, SAMPLES, i)]
        )
        low, high = percentile_interval(curves, seeds)
        plain.append((low <= truth + 1e-9) & (truth <= high + 1e-9))
        if np.isfinite(true.knee.value) and not np.isnan(found.knee).any():
            knee.append(found.knee.low <= true.knee.value * (1 + 1e-9) <= found.knee.high * (1 + 2e-9))
            open_knees += np.isinf(found.knee.low)
        at = true.within_loss.value if np.isfinite(true.within_loss.value) else SIZES[0]
        if not np.isnan(found.within_loss.low):
            within.append(found.within_loss.low <= at * (1 + 1e-9) <= found.within_loss.high * (1 + 2e-9))
    shares, plain_shares = np.mean(band, axis=0), np.mean(plain, axis=0)
    return {
        "band": float(shares.mean()),
        "band_worst_size": float(shares.min()),
        "plain_percentile": float(plain_shares.mean()),
        "plain_percentile_worst_size": float(plain_shares.min()),
        "knee": float(np.mean(knee)) if knee else None,
        "knee_open": open_knees / runs if knee else None,
        "within_1_point": float(np.mean(within)) if within else None,
    }


def chosen(runs: int) -> dict[str, float]:
    """Points by which the curve of a front is above the truth, fitted to its own trials or to fresh seeds."""
    random, own, fresh = np.random.default_rng(0), [], []
    while len(own) < runs:
        x = random.uniform(0, 4.3, 300)  # log of the size over the smallest
        settings = 0.60 - 0.12 * np.exp(-x / 0.8) - np.abs(random.normal(0, 0.03, 300))
        seen = settings + random.normal(0, SD, 300)
        members = pareto.front(np.column_stack([seen, x]), WAYS)
        if len(members) < 3:
            continue
        sizes, again = np.exp(x[members]), draw(random, settings[members], 3, None)
        truth = pareto.fit(sizes, settings[members], samples=1).curve["accuracy"]
        own.append((pareto.fit(sizes, seen[members], samples=1).curve["accuracy"] - truth).mean())
        fresh.append((pareto.fit(sizes, again, samples=1).curve["accuracy"] - truth).mean())
    return {"own_trials_points": 100 * float(np.mean(own)), "fresh_seeds_points": 100 * float(np.mean(fresh))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "front_calibration.json"
    )
    options = parser.parse_args()
    n, drawn = options.runs, {"seeds": None, f"seeds_and_{IMAGES}_images": IMAGES}
    one = front_uncertainty.front_probability(np.full((2, 1, 10), 0.5), [[1], [1]], WAYS)
    with ProcessPoolExecutor(options.processes) as pool:
        jobs: dict[tuple[str, str, str], Any] = {}

        def submit(part: str, name: str, seeds: int, run: Callable[..., Any], *given: Any) -> None:
            jobs[part, name, f"{seeds}_seeds"] = pool.submit(run, *given, n)

        for s in SEEDS:
            for over, images in drawn.items():
                submit("probabilities", f"two equal points, {over}", s, two_equal, s, images)
                for name in FRONTS if images is None else ("bends", "flat"):
                    submit("coverage", f"{name}, {over}", s, coverage, name, s, images)
            for name in POINTS:
                submit("probabilities", name, s, many, name, s)
        bias = pool.submit(chosen, n)
        result: dict[str, Any] = {"runs": n, "sd": SD, "samples": SAMPLES, "sizes": SIZES.tolist()}
        result["one_seed_is_not_given"] = bool(np.isnan(one).all())
        for (part, name, seeds), job in jobs.items():
            result.setdefault(part, {}).setdefault(name, {})[seeds] = job.result()
        result["chosen"] = bias.result()
    result["provenance"] = provenance()
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
