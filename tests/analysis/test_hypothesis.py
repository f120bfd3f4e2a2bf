import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from ablate.analysis.hypothesis import data_volume, data_volume_all
from ablate.analysis.pairs import pair
from ablate.analysis.seed_bootstrap import percentile_interval, resample
from ablate.analysis.significance import minimum_detectable_effect

SIZES = np.array([200, 2000, 20_000])
X = np.log10(SIZES)
FULL = np.array([0.4, 0.55, 0.7])
SPREAD = np.array([-1.5, -1.0, -0.5, -0.1, 0.2, 0.6, 0.9, 1.4])  # of eight seeds; the mean is 0
QUICK = {"resamples": 0, "mixed": False}


def table(sizes=SIZES, **accuracies):
    """Records of arms whose accuracies are (S, K)."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "images": size,
            "accuracy": float(value),
            "loss": 1 - float(value),
            "status": "complete",
        }
        for arm, values in accuracies.items()
        for seed, per_size in enumerate(values)
        for size, value in zip(sizes, per_size, strict=True)
    ]
    return pd.DataFrame(rows)


def straight(slopes, last):
    """Records of a binary arm whose gap has these slopes (S,) and these values (S,) at 20,000 images."""
    gap = np.asarray(last)[:, None] + np.asarray(slopes)[:, None] * (X - X[-1])  # (S, K)
    return table(full=np.tile(FULL, (len(gap), 1)), binary=FULL - gap)


@pytest.mark.parametrize(
    ("slope", "last", "verdict"),
    [
        (-0.04, 0.0, "closes"),
        (-0.04, 0.0095, "shrinks"),  # inside the margin, but not shown to be
        (-0.04, 0.05, "shrinks"),
        (-0.04, -0.05, "shrinks"),
        (0.04, 0.05, "grows"),
        (0.04, 0.0, "grows"),
        (0.0, 0.05, "constant"),
        (-0.005, 0.0, "constant"),  # below 0 and equivalent to 0
        (-0.012, 0.05, "shrinks"),
        (0.012, 0.05, "grows"),
    ],
)
def test_verdicts(slope, last, verdict):
    result = data_volume(straight(slope + 0.003 * SPREAD, last + 0.003 * SPREAD), arm="binary", **QUICK)
    assert result.verdict == verdict and type(result.verdict) is str
    assert result.slope.value == pytest.approx(slope) and result.gap.value == pytest.approx(last)
    assert (
        result.sentence.startswith(f"binary: {verdict}: the gap to full ")
        and f"{100 * slope:+z.1f} points" in result.sentence
    )


def test_a_slope_that_is_not_found_is_no_verdict():
    result = data_volume(straight(-0.01 + 0.04 * SPREAD, 0.001 * SPREAD), arm="binary", **QUICK)
    assert result.tests.loc["gap_equivalent", "holm"] < 0.001 and result.tests.loc["slope", "holm"] > 0.3
    assert result.verdict == "inconclusive"
    assert (
        f"a slope of {100 * result.smallest_slope:.1f} points would have been found with a power of 80 %"
        in result.sentence
    )


def test_a_slope_that_would_have_been_found_is_so_by_holm():
    """The more arms, the less each may be found by chance: the first of two must reach half the p."""
    records = straight(-0.01 + 0.04 * SPREAD, 0.001 * SPREAD)
    other = records[records["arm"] == "binary"].assign(arm="ternary")
    alone = data_volume(records, arm="binary", **QUICK)
    both = data_volume_all(pd.concat([records, other]), arms=["binary", "ternary"], **QUICK)
    sd, seeds = float(alone.slopes.std(ddof=1)), alone.seeds
    assert alone.smallest_slope == pytest.approx(minimum_detectable_effect(sd, seeds, 0.05, 0.8))
    assert both["binary"].smallest_slope == pytest.approx(minimum_detectable_effect(sd, seeds, 0.05 / 2, 0.8))


def test_margins_are_options():
    records = straight(-0.03 + 0.003 * SPREAD, 0.02 + 0.003 * SPREAD)
    assert data_volume(records, arm="binary", **QUICK).verdict == "shrinks"
    assert data_volume(records, arm="binary", margin=0.03, **QUICK).verdict == "closes"
    assert data_volume(records, arm="binary", slope_margin=0.04, **QUICK).verdict == "constant"
    with pytest.raises(ValueError, match=r"`margin > 0`.* must hold, but got \(margin=0,"):
        data_volume(records, arm="binary", margin=0)


def test_slope_is_that_of_each_seed():
    random = np.random.default_rng(0)
    full, binary = FULL + random.normal(0, 0.02, (8, 3)), FULL - 0.1 + random.normal(0, 0.02, (8, 3))
    result = data_volume(
        table(full=full, binary=binary).sample(frac=1, random_state=0), arm="binary", **QUICK
    )
    slopes = [stats.linregress(X, gap).slope for gap in full - binary]
    np.testing.assert_allclose(result.slopes, slopes)
    interval = DescrStatsW(slopes).tconfint_mean()
    np.testing.assert_allclose(result.slope[1:3], interval)
    np.testing.assert_allclose(result.gaps[["low", "high"]].T, DescrStatsW(full - binary).tconfint_mean())
    assert result.seeds == 8 and list(result.gaps["seeds"]) == [8, 8, 8]


def test_holm_over_arms():
    mean = stats.t.ppf(1 - 0.03 / 2, 7) * stats.sem(0.05 * SPREAD)  # p = 0.03
    one = straight(-mean + 0.05 * SPREAD, 0.1 + 0.01 * SPREAD)
    both = pd.concat([one, one[one["arm"] == "binary"].replace("binary", "ternary")])
    assert data_volume(both, arm="binary", **QUICK).verdict == "shrinks"
    result = data_volume_all(both, arms=["binary", "ternary"], **QUICK)["ternary"]
    assert result.slope.p == pytest.approx(0.03) and result.tests.loc["slope", "holm"] == pytest.approx(0.06)
    assert result.verdict == "inconclusive" and "Holm over 2 arms" in str(result)


@pytest.mark.parametrize(
    ("seeds", "arms", "can"), [(8, 2, True), (7, 2, True), (6, 2, False), (6, 1, True), (5, 1, False)]
)
def test_too_few_seeds_for_sign_flips_are_said(seeds, arms, can):
    records = straight(-0.04 + 0.003 * SPREAD[:seeds], 0.05 + 0.003 * SPREAD[:seeds])
    records = pd.concat([records, records[records["arm"] == "binary"].replace("binary", "ternary")])
    result = data_volume_all(records, arms=["binary", "ternary"][:arms], **QUICK)["binary"]
    assert any("sign flips" in note and "cannot" in note for note in result.notes) is not can
    assert (result.tests.loc["sign_flip", "holm"] < 0.05) == can
    assert result.verdict == "shrinks"


def test_sizes_near_chance_are_left_out():
    records = straight(0.003 * SPREAD, 0.05 + 0.003 * SPREAD)
    smallest = records["images"] == 200
    records.loc[smallest, "accuracy"] = np.where(records.loc[smallest, "arm"] == "full", 0.149, 0.148)
    result = data_volume(records, arm="binary", **QUICK)
    assert list(result.gaps["kept"]) == [False, True, True] and result.verdict == "constant"
    assert "left out: 200 images, where full itself is near chance (14.9 %)" in result.notes
    assert "within 5 points of chance (10 %)" in str(result)
    kept = data_volume(records, arm="binary", chance=0.01, **QUICK)
    assert kept.gaps["kept"].all() and kept.verdict == "grows"


def test_the_test_set_is_used_where_every_trial_has_it():
    records = straight(-0.04 + 0.003 * SPREAD, 0.05 + 0.003 * SPREAD)
    records = records.assign(test_accuracy=records["accuracy"], test_loss=1.0, accuracy=0.5)
    result = data_volume(records, arm="binary", **QUICK)
    assert (
        result.verdict == "shrinks"
        and "Measured on the test images; bands by a bootstrap over seeds alone." in str(result)
    )
    for test, images in (("A", "half A of the test images"), (True, "the test images")):
        assert f"Measured on {images}; " in str(data_volume(records.assign(test=test), arm="binary", **QUICK))
    mixed = data_volume(records.assign(test=["A", *[True] * (len(records) - 1)]), arm="binary", **QUICK)
    assert mixed.gaps.empty and any("were tested on different images" in note for note in mixed.notes)
    records.loc[0, "test_accuracy"] = None
    result = data_volume(records, arm="binary", **QUICK)
    assert (
        result.verdict == "inconclusive" and "the validation images" in result.basis
    )  # on which all are the same
    tuning = pd.DataFrame(
        [{"arm": "full", "seed": 0, "images": 200, "accuracy": 0.9, "role": "tune", "status": "complete"}]
    )
    records = pd.concat([records.assign(test_accuracy=0.6, role="seed"), tuning])
    assert not any("share" in note for note in data_volume(records, arm="binary", **QUICK).notes)


def test_seeds_and_sizes_without_their_pair_are_left_out():
    records = straight(-0.04 + 0.003 * SPREAD, 0.05 + 0.003 * SPREAD)
    lone = pd.DataFrame(
        [{"arm": "full", "seed": 0, "images": 50_000, "accuracy": 0.8, "loss": 1.0, "status": "complete"}]
    )
    gone = (records["arm"] == "binary") & (records["seed"] == 3) & (records["images"] == 200)
    pruned = (records["arm"] == "full") & (records["seed"] == 5) & (records["images"] == 2000)
    records.loc[pruned, ["status", "accuracy"]] = ["pruned", 0.5]
    result = data_volume(pd.concat([records[~gone], lone]), arm="binary", **QUICK)
    assert list(result.slopes.index) == [0, 1, 2, 4, 6, 7] and list(result.gaps["images"]) == [*SIZES]
    assert result.verdict == "shrinks"
    assert "left out: seeds 3, 5, which lack a trial" in result.notes
    assert "left out: 50,000 images, which only one arm has" in result.notes


GOOD = straight(-0.04 + 0.003 * SPREAD, 0.05 + 0.003 * SPREAD)
ODD = GOOD["seed"] % 2 == 1
BAD = {
    "nothing": (pd.DataFrame(), "no records with arm"),
    "no rows": (GOOD[:0], "no complete trial of full"),
    "one seed": (GOOD[GOOD["seed"] == 0], "two paired seeds, but there is 1"),
    "one size": (GOOD[GOOD["images"] == 200], "two sizes, but 1"),
    "constant accuracy": (GOOD.assign(accuracy=0.5), "no noise"),
    "at chance": (GOOD.assign(accuracy=0.1), "near chance (10.0 %)"),
    "all failed": (GOOD.assign(status="failed", accuracy=None, loss=None), "no complete trial of binary"),
    "no such arm": (GOOD[GOOD["arm"] == "full"], "no complete trial of binary"),
    "no baseline": (GOOD[GOOD["arm"] == "binary"], "no complete trial of full"),
    "unpaired seeds": (
        GOOD[(GOOD["arm"] == "full") == ODD],
        "seeds 0, 1, 2, 3, 4, 5, 6, 7, which lack a trial",
    ),
    "unpaired sizes": (
        GOOD[(GOOD["images"] == 200) == (GOOD["arm"] == "full")],
        "200 and 2,000 and 20,000 images, which only one",
    ),
    "duplicates": (pd.concat([GOOD, GOOD.assign(accuracy=0.3)]), "share arm, seed and images"),
    "percent": (GOOD.assign(accuracy=100 * GOOD["accuracy"]), "an accuracy in [0, 1]"),
    "infinite": (GOOD.assign(images=np.inf), "without seed, images"),
    "no noise": (straight(np.full(8, -0.04), np.full(8, 0.05)), "no noise"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_inconclusive_and_says_why(name):
    records, reason = BAD[name]
    result = data_volume(records, arm="binary", resamples=50)
    assert result.verdict == "inconclusive" and result.slope is None and result.mixed is None
    assert result.smallest_slope is None and result.slope_band is None and result.needed.empty
    assert result.tests.loc[["slope", "slope_equivalent", "sign_flip"]].isna().all(axis=None)
    assert reason in result.sentence and "nan" not in str(result).lower()


def test_other_scales():
    random = np.random.default_rng(0)
    full, binary = (
        FULL + random.normal(0, 0.02, (8, 3)),
        FULL - [0.2, 0.25, 0.3] + random.normal(0, 0.02, (8, 3)),
    )
    result = data_volume(table(full=full, binary=binary), arm="binary", **QUICK)
    scales = result.scales.set_index("scale")
    odds = np.log(full / (1 - full)) - np.log(binary / (1 - binary))
    assert scales.loc["logit", "slope"] == pytest.approx(
        np.mean([stats.linregress(X, gap).slope for gap in odds])
    )
    assert scales.loc["log error ratio", "gap"] == pytest.approx(
        np.log((1 - binary[:, -1]) / (1 - full[:, -1])).mean()
    )
    assert scales.loc["loss", "gap"] == pytest.approx(
        scales.loc["accuracy", "gap"]
    )  # loss = 1 - accuracy here
    assert (scales["gap_low"] > 0).all()
    opposite = data_volume(
        straight(0.02 + 0.002 * SPREAD, 0.25 + 0.002 * SPREAD).assign(
            loss=lambda t: t["images"] ** t["accuracy"]
        ),
        arm="binary",
        **QUICK,
    )
    assert "on the scale of loss the slope has the opposite sign" in opposite.notes
    perfect = data_volume(
        straight(0.2 + 0.003 * SPREAD, 0.7 - 0.003 * (SPREAD + 1.5)).drop(columns="loss"),
        arm="binary",
        **QUICK,
    )
    assert (
        list(perfect.scales["scale"]) == ["accuracy"]
        and len([n for n in perfect.notes if "logit" in n or "loss" in n]) == 2
    )


def test_bends_and_a_lead_are_said():
    notes = data_volume(straight(-0.04 + 0.003 * SPREAD, -0.05 + 0.003 * SPREAD), arm="binary", **QUICK).notes
    assert any("ahead of full" in note for note in notes) and not any("straight" in note for note in notes)
    bent = FULL - [0.1, 0.02, 0.02] + 0.003 * np.random.default_rng(0).normal(size=(8, 3))
    notes = data_volume(table(full=np.tile(FULL, (8, 1)), binary=bent), arm="binary", **QUICK).notes
    assert any("not a straight line" in note for note in notes)


def test_mixed_model_agrees_or_says_why_not():
    random = np.random.default_rng(1)
    seeds = random.normal(0, 0.03, (8, 1)) + random.normal(0, 0.01, (8, 1)) * (X - X.mean())
    gap = 0.1 - 0.04 * (X - X.mean()) + seeds + random.normal(0, 0.005, (8, 3))
    result = data_volume(table(full=np.tile(FULL, (8, 1)), binary=FULL - gap), arm="binary", resamples=0)
    assert result.mixed.value == pytest.approx(result.slope.value, abs=1e-5)  # a balanced design
    assert result.mixed.low < -0.04 < result.mixed.high and result.mixed.p < 0.01
    assert result.mixed_random == "intercept and slope" and not any(
        "mixed model" in note for note in result.notes
    )
    two = data_volume(straight([-0.04, -0.04 + 1e-9], [0.05, 0.05]), arm="binary", resamples=0)
    assert any("mixed model" in note for note in two.notes)


@pytest.mark.parametrize(("between", "random"), [(0.03, "intercept"), (0.0, "nothing")])
def test_a_mixed_model_on_its_bound_keeps_what_can_be_fitted(between, random):
    noise = np.random.default_rng(3)
    gap = 0.1 - 0.04 * (X - X.mean()) + between * SPREAD[:, None] + noise.normal(0, 0.02, (8, 3))
    result = data_volume(table(full=np.tile(FULL, (8, 1)), binary=FULL - gap), arm="binary", resamples=0)
    assert result.mixed_random == random
    assert any(note.startswith("the mixed model") and "with a random slope" in note for note in result.notes)
    design = sm.add_constant(
        np.column_stack([np.tile(X, 8), *(np.repeat(np.eye(8)[i], 3) for i in range(1, 8))])
    )
    ordinary = sm.OLS(
        gap.ravel(), design if random == "intercept" else design[:, :2]
    ).fit()  # in balance, seeds as factors
    half = stats.norm.ppf(0.975) * ordinary.bse[1]
    np.testing.assert_allclose(result.mixed[:3], ordinary.params[1] + np.array([0, -half, half]), rtol=2e-3)


def test_a_mixed_model_that_disagrees_is_said():
    slopes = np.array([-0.12, -0.1, 0.01, 0.02, -0.04, 0.0, -0.01, -0.05])
    gap = 0.1 + slopes[:, None] * (X - X.mean())
    gap += np.random.default_rng(0).normal(0, 1e-4, gap.shape)
    result = data_volume(table(full=np.tile(FULL, (8, 1)), binary=FULL - gap), arm="binary", resamples=0)
    p = result.tests["holm"]
    assert p["slope"] > 0.05 > p["mixed"]  # z has no use for the few degrees of freedom
    assert any(note.startswith("the mixed model does not agree with t") for note in result.notes)


def test_the_rules_say_what_each_verdict_means_and_which_comes_first():
    rules = str(data_volume(straight(0.003 * SPREAD, 0.05 + 0.003 * SPREAD), arm="binary", **QUICK).rules)
    assert rules.startswith("Fixed beforehand: ")
    verdicts = ("constant,", "closes,", "shrinks,", "grows,", "inconclusive")
    places = [rules.index(verdict) for verdict in verdicts]
    assert places == sorted(places)
    assert "two one-sided tests" in rules and "the first of these that is shown" in rules


def test_an_arm_of_another_recipe_than_its_baseline():
    records = straight(-0.04 + 0.003 * SPREAD, 0.05 + 0.003 * SPREAD)
    apart = data_volume(records, arm="binary", other_recipe=["binary"], **QUICK)
    assert apart.sentence.startswith(
        "binary: shrinks: the gap to full, in recipe and quantization together, shrinks with data"
    )
    assert "together" not in data_volume(records, arm="binary", **QUICK).sentence


def test_data_that_is_needed():
    curve = lambda d: 0.3 + 0.1 * np.log10(d / 200)  # noqa: E731
    wobble = 0.002 * SPREAD[:, None]
    records = table(full=curve(SIZES) + wobble, binary=curve(SIZES / 4) + wobble * [1, -1, 0.5])
    found = data_volume(records, arm="binary", mixed=False).needed
    np.testing.assert_allclose(found["times"], [4, 4, np.nan])
    assert (
        (found["low"] < [4, 4, 1.001]).all()
        and (found["high"] > 4).all()
        and (found["low"] > [3, 3, 0.999]).all()
    )
    assert np.isfinite(found["high"][:2]).all() and np.isinf(found["high"][2])
    assert found["extrapolated"][2] == pytest.approx(4)
    assert found["text"][2] == "> 20,000 images, extrapolated x4 (x1 to unbounded)" and found["text"][
        0
    ].startswith("x4 (x3")
    ahead = data_volume(
        table(full=curve(SIZES) + wobble, binary=curve(SIZES * 4) - wobble * [1, 0.5, 0.5]),
        arm="binary",
        mixed=False,
    ).needed
    assert ahead["text"][0].startswith("<= 200 images (x0 to x1)") and ahead["times"][2] == pytest.approx(
        1 / 4
    )
    flat = data_volume(
        table(full=curve(SIZES) + wobble, binary=0.25 + wobble * [1, -1, -1]), arm="binary", mixed=False
    ).needed
    assert (
        flat["extrapolated"].isna().all()
        and flat["text"][1] == "> 20,000 images, too far to extrapolate (x10 to unbounded)"
    )


def test_what_was_reached_stays_reached():
    noise = 0.001 * SPREAD[:, None] * [1, 1, 2]
    records = table(full=np.array([0.25, 0.29, 0.45]) + noise, binary=np.array([0.3, 0.28, 0.5]) - noise)
    assert data_volume(records, arm="binary", mixed=False).needed["text"][1].startswith("<= 200 images")


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


def test_bands_draw_seeds_and_images():
    records, correctness = with_images(400)
    result = data_volume(records, arm="binary", correctness=correctness, mixed=False)
    found = result.gaps.iloc[-1]
    assert "bootstrap over seeds and 400 images" in str(result)
    full, binary = (correctness[arm, 0, 20_000].astype(float) for arm in ("full", "binary"))
    wide = np.sqrt(8 / 7) * stats.t.ppf(0.975, 7)  # the images alone make nearly all of its width
    assert found["band_high"] - found["band_low"] == pytest.approx(
        2 * wide * np.std(full - binary) / 20, rel=0.12
    )
    alone = data_volume(records, arm="binary", mixed=False).gaps.iloc[-1]
    assert alone["band_high"] - alone["band_low"] < 0.2 * (found["band_high"] - found["band_low"])
    assert alone["band_low"] < alone["gap"] < alone["band_high"]
    again = data_volume(records, arm="binary", correctness=correctness, mixed=False).gaps.iloc[-1]
    assert again.equals(found)


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
    assert (
        resample(pairs, 2000).std(axis=0) > 0.95 * alone
    ).all()  # the seeds differ by far more than the images do


def test_bands_are_as_wide_as_t_would_have_them():
    normal = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    _, high = percentile_interval(normal, 8)
    assert high == pytest.approx(
        stats.t.ppf(0.975, 7) * np.sqrt(8 / 7), rel=1e-3
    )  # draws have sqrt(7/8) of the SD


def test_correctness_of_other_trials_is_refused():
    records, correctness = with_images(100)
    cases = {
        "does not match the accuracies": correctness | {("full", 0, 200): np.ones(100)},
        "not every trial": {},
    }
    cases["the same images"] = correctness | {("full", 0, 200): np.ones(99)}
    for reason, given in cases.items():
        result = data_volume(records, arm="binary", correctness=given, resamples=50, mixed=False)
        assert any(reason in note for note in result.notes)
        assert result.gaps["band_low"].notna().all()


SIMULATED = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "verdicts.py"))
STUDIES = 200
ABOVE = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / STUDIES)  # Monte Carlo error, one in two hundred


@pytest.mark.long
@pytest.mark.parametrize("truth", ["constant", "closes", "gap on its margin", "smallest slope by its power"])
def test_simulated_studies(truth):
    found = SIMULATED["verdicts"](truth, 8, STUDIES)
    assert found["wrong"] <= ABOVE and 1 - found["slope_covered"] <= ABOVE
    assert 1 - found["slope_covered"] >= 0.01
    if truth == "smallest slope by its power":
        assert found["slope_found"] == pytest.approx(0.8, abs=2.6 * np.sqrt(0.16 / STUDIES))
