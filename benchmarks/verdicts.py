"""How often `data_volume` is right: simulated studies whose truth is known, with the noise of real ones.

    python benchmarks/verdicts.py                # 1,000 studies of each truth, some minutes of two cores

The truths are straight, saturating, V-shaped and W-shaped, and the mean gaps of the committed studies. The
noise is that of results/data_volume and results/data_volume_epochs: the baseline's accuracies and the
residuals of the gaps (a vector over the five sizes per seed, so with their correlation), once as normal noise
of their covariance and once as drawn from the residuals themselves. Accuracies are rounded to 10,000 images.
A study is wrong where its verdict, or what it says of a segment, is false of its truth. Counts do not depend
on hardware.
"""

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analysis.hypothesis import judge
from ablate.analysis.pairs import Pairs, pair
from ablate.analysis.segments import changes, cut
from ablate.analysis.significance import minimum_detectable_effect
from ablate.analysis.verdict import DataVolume
from ablate.analysis.verdict_rules import Rules
from ablate.runs.provenance import provenance

RESULTS = Path(__file__).parents[1] / "results"
SIZES = np.array([200, 632, 2000, 6325, 20_000])
MIDDLE = cut(SIZES)
DECADES = np.log10(SIZES[[MIDDLE, -1]] / SIZES[[0, MIDDLE]])
IMAGE_SD = 0.6  # of an image's difficulty, and again of what one arm makes of it, in probits
ONE, TWO = (Rules(arms, "full", 0.01, 0.01, 0.1) for arms in (("binary",), ("binary", "ternary")))
STUDIES = {"data_volume": ("binary", "ternary"), "data_volume_epochs": ("binary", "ternary")}
NAMES = {"data_volume": "equal steps", "data_volume_epochs": "steps grow"}  # of the noise

SHAPES = {  # gaps (K,) in points
    "constant": [5.0, 5.0, 5.0, 5.0, 5.0],
    "closes": [10.0, 7.5, 5.0, 2.5, 0.0],
    "shrinks to 3 points": [9.0, 7.5, 6.0, 4.5, 3.0],
    "grows": [4.0, 5.5, 7.0, 8.5, 10.0],
    "saturating": [9.0, 5.0, 3.0, 2.4, 2.2],
    "falls, then constant": [8.0, 5.0, 3.0, 3.0, 3.0],
    "V-shaped": [7.0, 4.0, 2.0, 4.0, 7.0],
    "W-shaped": [5.0, 9.0, 5.0, 9.0, 5.0],
    "gap on its margin": [9.0, 7.0, 5.0, 3.0, 1.0],
    "change on its margin": [5.0, 4.5, 4.0, 3.5, 3.0],
    "turn on its margin": [6.0, 3.0, 2.0, 2.5, 3.0],
    "falls by 0.4 a decade": [4.0, 3.8, 3.6, 3.4, 3.2],
    "falls by 0.2 a decade": [4.0, 3.9, 3.8, 3.7, 3.6],
}


@dataclass(frozen=True)
class Noise:
    """Of a study: mean accuracy of full precision (K,), residuals of its gaps (R, K), their SD unbiased."""

    baseline: np.ndarray
    residuals: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        return self.residuals.T @ self.residuals / len(self.residuals)  # (K, K)

    def draw(self, random: np.random.Generator, seeds: int, kind: str) -> np.ndarray:
        """(S, K) of the gap."""
        if kind == "normal":
            return random.multivariate_normal(np.zeros(len(SIZES)), self.covariance, seeds)
        return random.choice(self.residuals, seeds)


@cache
def real(study: str) -> tuple[Noise, dict[str, np.ndarray]]:
    """The noise of a committed study, and the mean gap (K,) of each of its arms."""
    rows = pd.read_csv(RESULTS / study / "design.csv")
    rows = rows[(rows["role"] == "seed") & (rows["status"] == "complete")]
    accuracy = rows.pivot_table("test_accuracy", ["step", "seed"], "images")
    full = accuracy.loc["full"].to_numpy()  # (S, K)
    gaps = {arm: full - accuracy.loc[arm].to_numpy() for arm in STUDIES[study]}
    seeds = len(full)
    residuals = np.vstack([gap - gap.mean(axis=0) for gap in gaps.values()]) * np.sqrt(seeds / (seeds - 1))
    return Noise(full.mean(axis=0), residuals), {arm: gap.mean(axis=0) for arm, gap in gaps.items()}


def truths(study: str) -> dict[str, np.ndarray]:
    """Gaps (K,) by name, accuracies."""
    noise, means = real(study)
    shapes = {name: np.array(gap) / 100 for name, gap in SHAPES.items()}
    smallest = minimum_detectable_effect(second_error(noise, 8), 7, 1 - ONE.confidence, 0.8)
    shapes["smallest change"] = 0.05 - smallest * np.array([0, 0, 0, 0.5, 1])
    return shapes | {f"that of {arm} in {study}": gap for arm, gap in means.items()}


def second_error(noise: Noise, seeds: int) -> float:
    """The standard error of the change over the second segment."""
    step = np.eye(len(SIZES))[-1] - np.eye(len(SIZES))[MIDDLE]
    return float(np.sqrt(step @ noise.covariance @ step / seeds))


def accuracies(
    random: np.random.Generator, noise: Noise, gap: np.ndarray, seeds: int, kind: str
) -> np.ndarray:
    """(2, S, K) of full precision and of an arm with this gap (K,)."""
    full = noise.baseline + random.normal(0, 0.005, (seeds, len(SIZES)))
    return np.round([full, full - gap - noise.draw(random, seeds, kind)], 4)


@cache
def blank(seeds: int) -> Pairs:
    """The trials of a study, as `pair` finds them, for accuracies to be put in."""
    names = ["arm", "seed", "images"]
    index = pd.MultiIndex.from_product([["full", "binary"], range(seeds), SIZES], names=names)
    records = pd.DataFrame({"accuracy": 0.5}, index=index).reset_index()
    return pair(records, arm="binary", baseline="full", above=0.15)


def exact(gap: np.ndarray, baseline: np.ndarray, rules: Rules) -> pd.DataFrame:
    """The rows of `changes` for the truth itself: values and margins."""
    seeds = np.array([-1, 1])[:, None] * 1e-6  # two seeds, so that there is noise
    full = baseline + 0 * seeds
    flat = replace(blank(2), accuracy=np.array([full, full - gap - seeds * np.arange(1, 6) ** 2]))
    return changes(flat, rules).set_index("contrast")[["value", "margin"]]


def holds(result: DataVolume, truth: pd.DataFrame) -> bool:
    """Whether the verdict, and what is said of each segment, are true."""
    value, margin = truth["value"], truth["margin"]
    small = value.abs() < margin - 1e-12
    claims = {
        "closes": value["whole"] < 0 and small["gap"] and value["second"] < margin["second"],
        "shrinks": value["whole"] < 0 and value["second"] < margin["second"],
        "grows": value["whole"] > 0 and value["second"] > -margin["second"],
        "constant": small.drop(["gap", "bend"]).all(),
        "bent": abs(value["bend"]) > 1e-9,
    }
    said = {"falls": -1, "rises": 1}
    segments = [
        small[name]
        if (shows := result.by_contrast.loc[name, "shows"]) == "stays"
        else shows == "" or said[shows] * value[name] > 0
        for name in ("first", "second", "whole")
    ]
    return bool(claims.get(result.verdict, True)) and all(segments)


def covers(result: DataVolume, truth: pd.DataFrame) -> bool:
    """Whether all intervals cover their truths."""
    rows = result.by_contrast
    value = truth["value"][rows.index]
    return bool(((rows["low"] <= value) & (value <= rows["high"])).all())


def verdicts(
    truth: str, seeds: int, studies: int, seed: int = 0, study: str = "data_volume", kind: str = "normal"
) -> dict[str, Any]:
    """The shares of each verdict, of wrong ones, of studies whose intervals all cover, and the power."""
    random, noise, gap = np.random.default_rng(seed), real(study)[0], truths(study)[truth]
    known, found = exact(gap, noise.baseline, ONE), []
    for _ in range(studies):
        drawn = replace(blank(seeds), accuracy=accuracies(random, noise, gap, seeds, kind))
        found.append(judge("binary", drawn, ONE, resamples=0))
    told = [result for result in found if len(result.changes)]  # three seeds can agree to the last image
    counts = Counter(result.verdict for result in found)
    return {
        "verdicts": {verdict: n / studies for verdict, n in sorted(counts.items())},
        "wrong": sum(not holds(result, known) for result in told) / studies,
        "covered": sum(covers(result, known) for result in told) / len(told),
        "found": sum(result.by_contrast.loc["second", "shows"] == "falls" for result in told) / studies,
    }


def two_arms(seeds: int, studies: int, seed: int = 0) -> dict[str, float]:
    """Two arms beside one baseline: how often all eight intervals cover, and how often one is wrong."""
    random, noise, gap = (
        np.random.default_rng(seed),
        real("data_volume")[0],
        truths("data_volume")["constant"],
    )
    known = exact(gap, noise.baseline, TWO)
    covered = wrong = 0
    for _ in range(studies):
        first, second = (accuracies(random, noise, gap, seeds, "normal") for _ in TWO.arms)
        second = np.array([first[0], second[1] + first[0] - second[0]])
        found = [
            judge(arm, replace(blank(seeds), accuracy=each), TWO, resamples=0)
            for arm, each in zip(TWO.arms, (first, second), strict=True)
        ]
        covered += all(covers(result, known) for result in found)
        wrong += not all(holds(result, known) for result in found)
    return {"all_covered": covered / studies, "wrong": wrong / studies}


def with_images(
    random: np.random.Generator, noise: Noise, gap: np.ndarray, seeds: int, images: int
) -> np.ndarray:
    """(2, S, K, N): whether each image is right (probit); seeds and images are both random."""
    means = np.array([noise.baseline, noise.baseline - gap])[:, None]  # (2, 1, K)
    inside = np.sqrt(1 + 2 * IMAGE_SD**2)
    sd = np.sqrt(np.diag(noise.covariance))
    spread = sd * inside / stats.norm.pdf(stats.norm.ppf(means))  # the seeds' SD in probits
    middle = stats.norm.ppf(means) * np.sqrt(inside**2 + spread**2)
    shared, own = random.normal(size=(seeds, len(SIZES))), random.normal(size=(2, seeds, len(SIZES)))
    ability = middle + spread * (shared + own) / np.sqrt(2)  # (2, S, K)
    image = IMAGE_SD * (random.normal(size=images) + random.normal(size=(2, 1, 1, images)))
    noise_of_all = random.normal(size=(*ability.shape, images))
    return (ability[..., None] + image + noise_of_all > 0).astype(np.float32)


def coverage(seeds: int, studies: int, images: int, seed: int = 0) -> dict[str, float]:
    """With test images known one by one: how often the intervals cover what all images would show."""
    random, noise = np.random.default_rng(seed), real("data_volume")[0]
    gap = truths("data_volume")["shrinks to 3 points"]
    known = exact(gap, noise.baseline, ONE)
    held = Counter[str]()
    for _ in range(studies):
        correct = with_images(random, noise, gap, seeds, images)
        drawn = replace(blank(seeds), accuracy=correct.mean(axis=3, dtype=float), correct=correct)
        held["seeds and images"] += covers(judge("binary", drawn, ONE, resamples=0), known)
        held["seeds alone"] += covers(judge("binary", replace(drawn, correct=None), ONE, resamples=0), known)
    return {name: n / studies for name, n in held.items()}


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
        "gaps": {NAMES[s]: {name: gap.round(5).tolist() for name, gap in truths(s).items()} for s in STUDIES},
        "baseline": {NAMES[s]: real(s)[0].baseline.round(5).tolist() for s in STUDIES},
        "sd": {NAMES[s]: np.sqrt(np.diag(real(s)[0].covariance)).round(5).tolist() for s in STUDIES},
    }
    cases = [
        (seeds, study, kind, truth)
        for seeds, study, kind in product((8, 3), STUDIES, ("normal", "drawn"))
        for truth in truths(study)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        images = {seeds: pool.submit(coverage, seeds, n, 1000, seed) for seeds in (8, 3)}
        arms = pool.submit(two_arms, 8, n, seed)
        found = {
            (seeds, study, kind, truth): pool.submit(verdicts, truth, seeds, n, seed + i, study, kind)
            for i, (seeds, study, kind, truth) in enumerate(cases)
        }
        for (seeds, study, kind, truth), job in found.items():
            group = result.setdefault(f"{seeds}_seeds, {NAMES[study]}, {kind} noise", {})
            group[truth] = job.result()
        result["1000_test_images"] = {f"{seeds}_seeds": job.result() for seeds, job in images.items()}
        result["8_seeds_two_constant_arms"] = arms.result()
    wrongs = {case: job.result()["wrong"] for case, job in found.items()}
    worst = max(wrongs, key=lambda case: wrongs[case])
    result["worst"] = {"case": ", ".join(map(str, worst)), "wrong": wrongs[worst]}
    result["provenance"] = provenance()
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
