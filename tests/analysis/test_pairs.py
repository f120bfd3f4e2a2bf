from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from volume_trials import FULL, SIZES, straight, with_gap

from ablate.analysis.hypothesis import data_volume
from ablate.analysis.pairs import pair
from ablate.analysis.seed_bootstrap import percentile_interval, resample
from ablate.analysis.segments import mean_over

QUICK = {"resamples": 0}
SHRINKS = with_gap([0.13, 0.09, 0.05])


def test_sizes_near_chance_are_left_out():
    records = with_gap([0.09, 0.05, 0.03, 0.02], [200, 2000, 6325, 20_000])
    smallest = records["images"] == 200
    records.loc[smallest, "accuracy"] = np.where(records.loc[smallest, "arm"] == "full", 0.149, 0.148)
    result = data_volume(records, arm="binary", **QUICK)
    assert list(result.gaps["kept"]) == [False, True, True, True] and result.gaps["low"].isna()[0]
    assert list(result.changes["from_images"][:2]) == [2000, 6325]
    assert "left out: 200 images, where full itself is near chance (14.9 %)" in result.notes
    assert "within 5 points of chance (10 %)" in str(result)
    assert data_volume(records, arm="binary", chance=0.01, **QUICK).gaps["kept"].all()


def test_a_trial_without_a_test_accuracy_is_left_out_and_counted():
    """One of 80 moved the whole verdict to the validation accuracy."""
    sizes = np.array([200, 632, 2000, 6325, 20_000])
    records = with_gap([0.13, 0.11, 0.09, 0.07, 0.05], sizes)
    records = records.assign(test_accuracy=records["accuracy"], test_loss=1.0, accuracy=0.5)
    whole = data_volume(records, arm="binary", **QUICK)
    assert len(records) == 80 and whole.verdict == "shrinks"
    assert whole.basis.startswith("Measured on the test images; intervals cover seeds alone")
    records.loc[0, "test_accuracy"] = None
    result = data_volume(records, arm="binary", **QUICK)
    assert result.verdict == "shrinks" and "the test images" in result.basis
    assert "left out: 1 trial without a test accuracy" in result.notes
    assert "left out: 1 of 40 pairs, which lack a trial (of seed 0)" in result.notes
    assert dict(result.by_contrast["seeds"]) == {"first": 7, "second": 8, "whole": 7, "bend": 7, "gap": 8}
    assert result.by_contrast.loc["second", "value"] == whole.by_contrast.loc["second", "value"]
    nothing = data_volume(records.assign(test_accuracy=np.nan), arm="binary", **QUICK)
    assert "the validation images" in nothing.basis and not any(
        "without a test" in note for note in nothing.notes
    )


def test_tuning_trials_are_not_paired():
    tuning = pd.DataFrame(
        [{"arm": "full", "seed": 0, "images": 200, "accuracy": 0.9, "role": "tune", "status": "complete"}]
    )
    records = pd.concat([SHRINKS.assign(role="seed"), tuning])
    assert not any("share" in note for note in data_volume(records, arm="binary", **QUICK).notes)


def test_seeds_and_sizes_without_their_pair_are_left_out():
    records = SHRINKS.copy()
    lone = pd.DataFrame(
        [{"arm": "full", "seed": 0, "images": 50_000, "accuracy": 0.8, "loss": 1.0, "status": "complete"}]
    )
    gone = (records["arm"] == "binary") & (records["seed"] == 3) & (records["images"] == 200)
    pruned = (records["arm"] == "full") & (records["seed"] == 5) & (records["images"] == 2000)
    records.loc[pruned, ["status", "accuracy"]] = ["pruned", 0.5]
    result = data_volume(pd.concat([records[~gone], lone]), arm="binary", **QUICK)
    assert list(result.slopes.index) == [0, 1, 2, 4, 6, 7] and list(result.gaps["images"]) == [*SIZES]
    assert result.verdict == "shrinks" and list(result.gaps["seeds"]) == [7, 7, 8]
    assert "left out: 2 of 24 pairs, which lack a trial (of seed 3, 5)" in result.notes
    assert "left out: 50,000 images, which only one arm has" in result.notes


def test_the_variance_over_seeds_and_images_is_that_of_crossed_effects():
    """Against the variance of means of simulated tables whose effects are known."""
    random, means, errors = np.random.default_rng(0), [], []
    for _ in range(400):
        seeds, images = random.normal(0, 0.1, (6, 1)), random.normal(0, 0.5, (1, 40))
        cells = 0.3 + seeds + images + random.normal(0, 0.6, (6, 40))
        found = mean_over(cells.mean(axis=1), cells)
        means.append(found.value)
        errors.append(found.error**2)
    truth = 0.01 / 6 + 0.25 / 40 + 0.36 / 240
    assert np.var(means) == pytest.approx(truth, rel=0.2) and np.mean(errors) == pytest.approx(truth, rel=0.1)


def test_without_images_it_is_the_t_interval():
    values = np.array([0.1, 0.3, 0.25, 0.2])
    found = mean_over(values)
    assert found == (values.mean(), pytest.approx(stats.sem(values)), 3, 4)
    low, high = found.interval(0.9)
    np.testing.assert_allclose((low, high), stats.t.interval(0.9, 3, values.mean(), stats.sem(values)))
    assert mean_over(values[:1]) is None and mean_over(np.full(4, 0.2)) is None


def with_images(images, seeds=8):
    """Trials of which all seeds get the same images right, but for one image each."""
    random = np.random.default_rng(0)
    correctness = {}
    for arm, accuracies in {"full": FULL, "binary": FULL - [0.2, 0.15, 0.1]}.items():
        for size, accuracy in zip(SIZES, accuracies, strict=True):
            right = random.random(images) < accuracy
            for seed in range(seeds):
                correctness[arm, seed, size] = right ^ (
                    np.arange(images) == seed * (arm == "full") * (size > 200)
                )
    rows = [(*key, right.mean(), 1.0) for key, right in correctness.items()]
    return pd.DataFrame(rows, columns=["arm", "seed", "images", "accuracy", "loss"]), correctness


def test_intervals_cover_seeds_and_images():
    records, correctness = with_images(400)
    result = data_volume(records, arm="binary", correctness=correctness, **QUICK)
    assert "intervals cover seeds and 400 test images." in str(result)
    full, binary = (correctness[arm, 0, 20_000].astype(float) for arm in ("full", "binary"))
    row = result.by_contrast.loc["gap"]  # the images alone make nearly all of its width
    assert row["error"] == pytest.approx(np.std(full - binary) / 20, rel=0.05) and row["freedom"] > 100
    alone = data_volume(records, arm="binary", **QUICK)
    assert alone.by_contrast.loc["gap", "error"] < 0.2 * row["error"]
    assert "they say nothing of other images" in str(alone)
    width = result.gaps["high"] - result.gaps["low"]
    assert (width > 2 * (alone.gaps["high"] - alone.gaps["low"]))[1:].all()


def test_seeds_are_drawn_beside_images():
    random = np.random.default_rng(0)
    correctness = {
        (arm, i, 200): random.random(400) < 0.3 + 0.05 * i for arm in ("full", "binary") for i in range(8)
    }
    records = pd.DataFrame(
        [(*key, right.mean()) for key, right in correctness.items()],
        columns=["arm", "seed", "images", "accuracy"],
    )
    pairs = pair(records, arm="binary", baseline="full", above=0.15, correctness=correctness)
    alone = resample(replace(pairs, correct=None), 2000).std(axis=0)
    np.testing.assert_allclose(alone[:, 0], pairs.accuracy[..., 0].std(axis=1) / np.sqrt(8), rtol=0.06)
    # the seeds differ by far more than the images do
    assert (resample(pairs, 2000).std(axis=0) > 0.95 * alone).all()


def test_bootstrap_intervals_are_as_wide_as_t_would_have_them():
    normal = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    for confidence in (0.95, 0.99):
        _, high = percentile_interval(normal, 8, confidence)
        wide = stats.t.ppf((1 + confidence) / 2, 7) * np.sqrt(8 / 7)  # draws have sqrt(7/8) of the SD
        assert high == pytest.approx(wide, rel=5e-3)


def test_correctness_of_other_trials_is_refused():
    records, correctness = with_images(100)
    cases = {
        "does not match the accuracies": correctness | {("full", 0, 200): np.ones(100)},
        "not every trial": {},
    }
    cases["the same images"] = correctness | {("full", 0, 200): np.ones(99)}
    cases["must be 0 or 1 for two images or more"] = {
        key: [right.mean()] * 9 for key, right in correctness.items()
    }
    for reason, given in cases.items():
        result = data_volume(records, arm="binary", correctness=given, **QUICK)
        assert any(reason in note for note in result.notes) and "seeds alone" in result.basis


def test_accuracies_of_the_validation_set_are_used_where_no_trial_was_tested():
    assert (
        "the validation images"
        in data_volume(straight([-0.04, -0.05], [0.05, 0.06]), arm="binary", **QUICK).basis
    )


def test_each_seed_may_lack_another_size():
    """Five seeds that each lack a trial at another size still have four pairs at each."""
    records = with_gap([0.13, 0.11, 0.09, 0.07, 0.05], [200, 632, 2000, 6325, 20_000])
    records = records[records["seed"] < 5]
    lost = (records["arm"] == "binary") & (records["images"].rank(method="dense") - 1 == records["seed"])
    result = data_volume(records[~lost], arm="binary", **QUICK)
    assert list(result.gaps["seeds"]) == [4] * 5 and result.slope is None
    assert result.verdict == "shrinks" and list(result.by_contrast["seeds"]) == [3, 3, 3, 2, 4]
