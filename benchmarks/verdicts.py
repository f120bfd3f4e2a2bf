"""How often `data_volume` is right: simulated studies whose truth is known.

    python benchmarks/verdicts.py                # 1,000 studies of each truth, a few minutes of one core

Assumed, as in a pilot on CIFAR-10 with the bundled backbone: five sizes from 200 to 20,000 images; the SD of
accuracy between seeds falls from 2.5 points at 200 images to 0.7 at 20,000; half of its variance is shared by
the two arms of a seed, so that the SD of the gap is the same; normal noise, rounded to 10,000 test images.
Counts do not depend on hardware.
"""

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analysis.hypothesis import compare_arms
from ablate.analysis.pairs import Pairs, pair
from ablate.analysis.significance import minimum_detectable_effect
from ablate.analysis.t_interval import Estimate
from ablate.analysis.verdict_rules import Rules
from ablate.runs.provenance import provenance

SIZES = np.array([200, 632, 2000, 6325, 20_000])
BASELINE = np.array([0.35, 0.45, 0.55, 0.63, 0.70])
SD = np.geomspace(0.025, 0.007, 5)
X = np.log10(SIZES)
DECADES = X[-1] - X[0]
SLOPE_SD = float(
    np.sqrt((((X - X.mean()) / ((X - X.mean()) ** 2).sum()) ** 2 * SD**2).sum())
)  # of one seed's slope
IMAGE_SD = 0.6  # of an image's difficulty, and again of what one arm makes of it, in probits
ONE, TWO = (Rules(arms, "full", 0.01, 0.01, 0.1) for arms in (("binary",), ("binary", "ternary")))

TRUTHS: dict[
    str, tuple[float, float, set[str]]
] = {  # gap at 200 and at 20,000 images, the verdicts that are true of it
    "constant": (0.06, 0.06, {"constant"}),
    "closes": (0.10, 0.0, {"closes", "shrinks"}),
    "shrinks to 3 points": (0.09, 0.03, {"shrinks"}),
    "grows": (0.04, 0.10, {"grows"}),
    "gap on its margin": (0.09, 0.01, {"shrinks"}),
    "slope on its margin": (0.03 + 0.01 * DECADES, 0.03, {"shrinks"}),
    "half the slope margin": (0.03 + 0.005 * DECADES, 0.03, {"shrinks", "constant"}),
    "smallest slope by its power": (
        0.03 + minimum_detectable_effect(SLOPE_SD, 8, 0.05, 0.8) * DECADES,
        0.03,
        {"shrinks"},
    ),
}


def gaps_of(truth: str) -> np.ndarray:
    """(K,) straight in log D."""
    first, last, _ = TRUTHS[truth]
    return first + (last - first) * (X - X[0]) / DECADES


def study(random: np.random.Generator, seeds: int, gap: np.ndarray) -> np.ndarray:
    """(2, S, K) accuracies of the full arm and of one with this gap (K,)."""
    shared, own = random.normal(size=(seeds, len(SIZES))), random.normal(size=(2, seeds, len(SIZES)))
    means = np.array([BASELINE, BASELINE - gap])[:, None]  # (2, 1, K)
    return np.round(means + SD * (shared + own) / np.sqrt(2), 4)


def blank(seeds: int) -> Pairs:
    """The trials of a study, as `pair` finds them, for accuracies to be put in."""
    index = pd.MultiIndex.from_product(
        [["full", "binary"], range(seeds), SIZES], names=["arm", "seed", "images"]
    )
    return pair(
        pd.DataFrame({"accuracy": 0.5}, index=index).reset_index(), arm="binary", baseline="full", above=0.15
    )


def holds(interval: Estimate | None, truth: float) -> bool:
    """Three seeds can agree to the last image, and then there is no interval: that counts as a miss."""
    return interval is not None and interval.low <= truth <= interval.high


def verdicts(truth: str, seeds: int, studies: int, seed: int = 0) -> dict[str, Any]:
    """The shares of each verdict, of wrong ones, and of slope intervals that cover the truth."""
    random, pairs = np.random.default_rng(seed), blank(seeds)
    slope = (TRUTHS[truth][1] - TRUTHS[truth][0]) / DECADES
    found = []
    for _ in range(studies):
        drawn = replace(pairs, accuracy=study(random, seeds, gaps_of(truth)))
        found.append(compare_arms({"binary": drawn}, ONE, resamples=0, mixed=False)["binary"])
    counts = Counter(result.verdict for result in found)
    wrong = sum(n for verdict, n in counts.items() if verdict not in TRUTHS[truth][2] | {"inconclusive"})
    return {
        "verdicts": {verdict: n / studies for verdict, n in sorted(counts.items())},
        "wrong": wrong / studies,
        "slope_covered": float(np.mean([holds(result.slope, slope) for result in found])),
        "slope_found": float(np.mean([result.tests.loc["slope", "p"] < 0.05 for result in found])),
    }


def two_arms(seeds: int, studies: int, seed: int = 0) -> dict[str, float]:
    """Two arms whose gaps do not change: how often at least one slope is found, with Holm and without."""
    random, pairs, gap = np.random.default_rng(seed), blank(seeds), gaps_of("constant")
    with_holm = without = 0
    for _ in range(studies):
        first, second = study(random, seeds, gap), study(random, seeds, gap)
        second[0], second[1] = first[0], second[1] + first[0] - second[0]  # one full arm for both
        drawn = {
            arm: replace(pairs, accuracy=each) for arm, each in zip(TWO.arms, (first, second), strict=True)
        }
        found = compare_arms(drawn, TWO, resamples=0, mixed=False).values()
        with_holm += any(result.tests.loc["slope", "holm"] < 0.05 for result in found)
        without += any(result.tests.loc["slope", "p"] < 0.05 for result in found)
    return {"slope_found_with_holm": with_holm / studies, "slope_found_without": without / studies}


def with_images(random: np.random.Generator, seeds: int, images: int) -> np.ndarray:
    """(2, S, K, N): "shrinks to 3 points" per image (probit); seeds and images are both random."""
    means = np.array([BASELINE, BASELINE - gaps_of("shrinks to 3 points")])[:, None]  # (2, 1, K)
    inside = np.sqrt(1 + 2 * IMAGE_SD**2)
    spread = SD * inside / stats.norm.pdf(stats.norm.ppf(means))  # the seeds' SD in probits
    middle = stats.norm.ppf(means) * np.sqrt(inside**2 + spread**2)
    shared, own = random.normal(size=(seeds, len(SIZES))), random.normal(size=(2, seeds, len(SIZES)))
    ability = middle + spread * (shared + own) / np.sqrt(2)  # (2, S, K)
    image = IMAGE_SD * (random.normal(size=images) + random.normal(size=(2, 1, 1, images)))
    noise = random.normal(size=(*ability.shape, images))
    return (ability[..., None] + image + noise > 0).astype(np.float32)


def coverage(seeds: int, studies: int, images: int | None, resamples: int, seed: int = 0) -> dict[str, float]:
    """How often bands and t intervals cover the truth; with `images`, that of all images."""
    random, pairs, gap = np.random.default_rng(seed), blank(seeds), gaps_of("shrinks to 3 points")
    slope = (gap[-1] - gap[0]) / DECADES
    held = Counter[str]()
    for _ in range(studies):
        if images is None:
            drawn = replace(pairs, accuracy=study(random, seeds, gap))
        else:
            correct = with_images(random, seeds, images)
            drawn = replace(pairs, accuracy=correct.mean(axis=3, dtype=float), correct=correct)
        found = compare_arms({"binary": drawn}, ONE, resamples=resamples, mixed=False)["binary"]
        held["gap_band"] += found.gaps["band_low"].iloc[-1] <= gap[-1] <= found.gaps["band_high"].iloc[-1]
        held["gap_t"] += holds(found.gap, gap[-1])
        held["slope_band"] += (
            found.slope_band is not None and found.slope_band[0] <= slope <= found.slope_band[1]
        )
        held["slope_t"] += holds(found.slope, slope)
    return {name: int(n) / studies for name, n in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verdicts.json")
    options = parser.parse_args()
    n, seed = options.studies, options.seed
    result: dict[str, Any] = {
        "studies_of_each_truth": n,
        "seed": seed,
        "wrong_limit": 0.05 + 1.96 * np.sqrt(0.05 * 0.95 / n),
    }
    result["assumed"] = {
        "sizes": SIZES.tolist(),
        "baseline": BASELINE.tolist(),
        "sd": SD.round(5).tolist(),
        "slope_sd": SLOPE_SD,
    }
    result["truths"] = {
        name: {"gap": [first, last], "true": sorted(true)} for name, (first, last, true) in TRUTHS.items()
    }
    with ProcessPoolExecutor(options.processes) as pool:
        coverages = {
            (seeds, images): pool.submit(coverage, seeds, n, images, 1000, seed)
            for seeds in (8, 3)
            for images in (1000, None)
        }
        arms = pool.submit(two_arms, 8, n, seed)
        single = {
            (seeds, truth): pool.submit(verdicts, truth, seeds, n, seed)
            for seeds in (8, 3)
            for truth in TRUTHS
        }
        for seeds in (8, 3):
            result[f"{seeds}_seeds"] = {truth: single[seeds, truth].result() for truth in TRUTHS}
            drawn = {"seeds": None, "seeds_and_1000_images": 1000}
            result[f"{seeds}_seeds_coverage"] = {
                name: coverages[seeds, images].result() for name, images in drawn.items()
            }
        result["8_seeds_two_constant_arms"] = arms.result()
    result["provenance"] = provenance()
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
