import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from volume_trials import FULL, SIZES, SPREAD, X, straight, table, with_gap

from ablate.analysis.hypothesis import data_volume, data_volume_all

FIVE = np.array([200, 632, 2000, 6325, 20_000])
QUICK = {"resamples": 0}


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        ((0.08, 0.04, 0.0), "closes"),
        ((0.08, 0.04, 0.0085), "shrinks"),  # inside the margin, but not shown to be
        ((0.13, 0.09, 0.05), "shrinks"),
        ((0.02, 0.018, 0.0), "closes"),  # all of it with many data
        ((0.13, 0.12, 0.05), "shrinks"),
        ((0.14, 0.05, 0.04), "shrinks"),  # ever less, but over both segments
        ((0.03, -0.01, -0.05), "shrinks"),  # a growing lead
        ((0.02, 0.06, 0.10), "grows"),
        ((-0.08, -0.04, 0.0), "grows"),
        ((0.05, 0.05, 0.05), "constant"),
        ((0.12, 0.06, 0.12), "bent"),
        ((0.06, 0.12, 0.06), "bent"),
        ((0.12, 0.05, 0.05), "bent"),  # falls, then stays: more data no longer help
        ((0.05, 0.05, 0.12), "grows"),  # where there are many data
        ((0.10, 0.001, 0.0), "closes"),  # falls, then stays at none
    ],
)
def test_verdicts(gap, verdict):
    result = data_volume(with_gap(gap), arm="binary", **QUICK)
    assert result.verdict == verdict and type(result.verdict) is str
    rows = result.by_contrast
    assert rows.loc["first", "value"] == pytest.approx(gap[1] - gap[0])
    assert rows.loc["whole", "value"] == pytest.approx(gap[2] - gap[0])
    assert rows.loc["gap", "value"] == pytest.approx(gap[2])
    assert result.sentence.startswith(
        f"binary: {verdict}: the {'arm gains on' if gap[2] < 0 else 'gap to'} full"
    )
    assert f"{100 * (gap[1] - gap[0]):+z.1f} points (" in result.sentence


def test_a_gap_that_falls_and_rises_again_is_bent():
    """It was called constant: its slope is 0."""
    result = data_volume(with_gap([0.12, 0.06, 0.0, 0.06, 0.12], FIVE), arm="binary", **QUICK)
    assert result.verdict == "bent" and result.slope.value == pytest.approx(0, abs=1e-3)
    assert "from 200 to 2,000 images it falls: -12.0 points" in result.sentence
    assert "from 2,000 to 20,000 images it rises: +12.0 points" in result.sentence


def test_a_sign_comes_before_equivalence():
    """A gap of 0.2 points that grows to 2.0 was called constant: 0.9 a decade are within the margin."""
    result = data_volume(with_gap([0.002, 0.011, 0.02], noise=0.0005), arm="binary", **QUICK)
    assert result.verdict == "grows" and list(result.by_contrast["shows"][:3]) == ["rises"] * 3


def test_margins_are_relative_to_the_error_too():
    """0.4 points are no change where full precision has 40 % of error, but much where it has 2 %."""
    gap, noise = [0.010, 0.0105, 0.0102], 0.0015
    assert data_volume(with_gap(gap, noise=noise), arm="binary", **QUICK).verdict == "constant"
    accurate = with_gap(gap, noise=noise, full=[0.95, 0.97, 0.98])
    result = data_volume(accurate, arm="binary", **QUICK)
    assert result.verdict == "inconclusive"
    np.testing.assert_allclose(result.by_contrast["margin"].drop("bend"), [0.003, 0.002, 0.002, 0.002])
    assert data_volume(accurate, arm="binary", relative_margin=0.6, **QUICK).verdict == "constant"


def test_constant_holds_at_every_size():
    """Both segments end where they began, but between their ends the gap is another."""
    result = data_volume(with_gap([0.05, 0.09, 0.05, 0.09, 0.05], FIVE), arm="binary", **QUICK)
    assert result.verdict == "inconclusive"
    assert set(result.by_contrast["shows"]) == {"stays", "", "behind"}
    assert sum("both falls and rises" in note for note in result.notes) == 2


def test_a_turn_that_is_not_shown_is_no_verdict():
    """The gap falls in all, but may rise by more than its margin over the second segment."""
    result = data_volume(with_gap([0.06, 0.03, 0.02], noise=0.012), arm="binary", **QUICK)
    rows = result.by_contrast
    assert rows.loc["whole", "shows"] == "falls" and rows.loc["second", "high"] > rows.loc["second", "margin"]
    assert result.verdict == "inconclusive" and "no change is shown" in result.sentence
    found = f"{100 * rows.loc['first', 'smallest']:.1f} and {100 * rows.loc['second', 'smallest']:.1f} points"
    assert f"changes of {found}" in result.sentence and "told from 0 with a power of 80 %" in result.sentence


def test_margins_are_options():
    records = with_gap([0.08, 0.05, 0.02])
    assert data_volume(records, arm="binary", **QUICK).verdict == "shrinks"
    assert data_volume(records, arm="binary", margin=0.03, **QUICK).verdict == "closes"
    with pytest.raises(ValueError, match=r"`0 < margin <= 1`.* must hold, but got \(margin=0,"):
        data_volume(records, arm="binary", margin=0)
    for option in ({"relative_margin": -1}, {"slope_margin": np.inf}, {"resamples": -1}):
        with pytest.raises(ValueError, match="must hold, but got"):
            data_volume(records, arm="binary", **option)
    with pytest.raises(ValueError, match="arms must be a list"):
        data_volume_all(records, arms="binary")


def test_intervals_of_all_arms_hold_together():
    alone = with_gap([0.1, 0.07, 0.05])
    both = pd.concat([alone, alone[alone["arm"] == "binary"].replace("binary", "ternary")])
    one = data_volume(both, arm="binary", **QUICK)
    two = data_volume_all(both, arms=["binary", "ternary"], **QUICK)["binary"]
    full, binary = (
        alone[alone["arm"] == arm].pivot(index="seed", columns="images", values="accuracy")
        for arm in ("full", "binary")
    )
    change = (full - binary)[20_000] - (full - binary)[200]
    for result, intervals in ((one, 5), (two, 10)):
        half = stats.t.ppf(1 - 0.05 / intervals / 2, 7) * stats.sem(change)
        row = result.by_contrast.loc["whole"]
        np.testing.assert_allclose([row["low"], row["high"]], change.mean() + np.array([-half, half]))
        assert f"simultaneous over the {intervals} of" in str(result)
        k = intervals / 5 * 3  # an interval for each of three sizes
        half = stats.t.ppf(1 - 0.05 / k / 2, 7) * stats.sem((full - binary)[200])
        assert result.gaps["high"][0] - result.gaps["gap"][0] == pytest.approx(half)


def test_slope_is_the_average_over_seeds_and_decides_nothing():
    random = np.random.default_rng(0)
    full, binary = FULL + random.normal(0, 0.02, (8, 3)), FULL - 0.1 + random.normal(0, 0.02, (8, 3))
    records = table(full=full, binary=binary).sample(frac=1, random_state=0)
    result = data_volume(records, arm="binary", **QUICK)
    slopes = [stats.linregress(X, gap).slope for gap in full - binary]
    np.testing.assert_allclose(result.slopes, slopes)
    assert result.slope.value == pytest.approx(np.mean(slopes))
    assert result.seeds == 8 and list(result.gaps["seeds"]) == [8, 8, 8]


GOOD = with_gap([0.13, 0.09, 0.05])
ODD = GOOD["seed"] % 2 == 1
BAD = {
    "nothing": (pd.DataFrame(), "no records with arm"),
    "no rows": (GOOD[:0], "no complete trial of full"),
    "one seed": (GOOD[GOOD["seed"] == 0], "two paired seeds, but there is 1"),
    "one size": (GOOD[GOOD["images"] == 200], "two sizes, but 1"),
    "two sizes": (GOOD[GOOD["images"] < 5000], "three sizes, the outer ones a decade apart, but"),
    "constant accuracy": (GOOD.assign(accuracy=0.5), "no noise"),
    "at chance": (GOOD.assign(accuracy=0.1), "near chance (10.0 %)"),
    "all failed": (GOOD.assign(status="failed", accuracy=None, loss=None), "no complete trial of binary"),
    "no such arm": (GOOD[GOOD["arm"] == "full"], "no complete trial of binary"),
    "no baseline": (GOOD[GOOD["arm"] == "binary"], "no complete trial of full"),
    "unpaired seeds": (
        GOOD[(GOOD["arm"] == "full") == ODD],
        "200 and 2,000 and 20,000 images, at which no seed has a trial of both arms",
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
    assert result.verdict == "inconclusive" and result.changes.empty
    assert reason in result.sentence and "nan" not in str(result).lower()


def test_an_arm_at_chance_is_left_out_as_the_baseline_is():
    """The gap of an arm that only guesses grows with the baseline's accuracy; that was a verdict."""
    records = with_gap(FULL - 0.1, full=FULL)
    result = data_volume(records, arm="binary", **QUICK)
    assert result.verdict == "inconclusive" and not result.gaps["kept"].any()
    assert "200 and 2,000 and 20,000 images, where binary itself is near chance (10.0 %)" in result.sentence
    sound = pd.concat([records, with_gap([0.13, 0.09, 0.05]).replace("binary", "ternary")]).drop_duplicates()
    assert data_volume(sound, arm="ternary", **QUICK).verdict == "shrinks"


def test_other_scales():
    random = np.random.default_rng(0)
    full = FULL + random.normal(0, 0.02, (8, 3))
    binary = FULL - [0.2, 0.25, 0.3] + random.normal(0, 0.02, (8, 3))
    scales = data_volume(table(full=full, binary=binary), arm="binary", **QUICK).scales.set_index("scale")
    odds = np.log(full / (1 - full)) - np.log(binary / (1 - binary))
    slopes = [stats.linregress(X, gap).slope for gap in odds]
    assert scales.loc["logit", "slope"] == pytest.approx(np.mean(slopes))
    half = stats.t.ppf(1 - 0.05 / 8 / 2, 7) * stats.sem(slopes)  # four scales, slope and gap
    assert scales.loc["logit", "slope_high"] == pytest.approx(np.mean(slopes) + half)
    ratio = np.log((1 - binary[:, -1]) / (1 - full[:, -1]))
    assert scales.loc["log error ratio", "gap"] == pytest.approx(ratio.mean())
    assert scales.loc["loss", "gap"] == pytest.approx(scales.loc["accuracy", "gap"])  # loss = 1 - accuracy
    assert (scales["gap_low"] > 0).all()
    perfect = with_gap([0.2, 0.25, 0.3], full=[0.4, 0.7, 1.0]).drop(columns="loss")
    result = data_volume(perfect, arm="binary", **QUICK)
    assert list(result.scales["scale"]) == ["accuracy"]
    assert len([note for note in result.notes if "logit" in note or "loss" in note]) == 2


def test_a_slow_straight_fall_is_not_bent():
    """One segment may show it and the other not, but their changes are the same."""
    records = with_gap([0.038, 0.034, 0.030], noise=0.0028)
    result = data_volume(records, arm="binary", **QUICK)
    assert result.by_contrast.loc["bend", "shows"] == "" and result.verdict == "shrinks"


def test_a_fall_that_does_not_go_on_is_bent():
    result = data_volume(with_gap([0.06, 0.03, 0.038], noise=0.004), arm="binary", **QUICK)
    assert (
        result.by_contrast.loc["second", "shows"] == "" and result.by_contrast.loc["bend", "shows"] == "bends"
    )
    assert result.verdict == "bent" and "no change is shown" in result.sentence


def test_a_lead_is_said():
    ahead = data_volume(with_gap([-0.06, -0.03, -0.01], noise=0.001), arm="binary", **QUICK)
    assert ahead.verdict == "grows" and "the arm falls back towards full" in ahead.sentence
    notes = data_volume(with_gap([0.03, -0.01, -0.05]), arm="binary", **QUICK).notes
    assert any("ahead of full" in note for note in notes)


def test_the_rules_say_what_each_verdict_means_and_which_comes_first():
    rules = str(data_volume(GOOD, arm="binary", **QUICK).rules)
    assert rules.startswith("Fixed beforehand: ")
    verdicts = ("Closes:", "Bent:", "Shrinks or grows:", "Constant:", "inconclusive")
    places = [rules.index(verdict) for verdict in verdicts]
    assert places == sorted(places)
    assert "simultaneous over the 5 of 1 arm" in rules and "the first of these" in rules


def test_an_arm_of_another_recipe_than_its_baseline():
    apart = data_volume(GOOD, arm="binary", other_recipe=["binary"], **QUICK)
    assert apart.sentence.startswith(
        "binary: shrinks: the gap to full, in recipe and quantization together, shrinks with data"
    )
    assert "together" not in data_volume(GOOD, arm="binary", **QUICK).sentence


def test_data_that_is_needed():
    curve = lambda d: 0.3 + 0.1 * np.log10(d / 200)  # noqa: E731
    wobble = 0.002 * SPREAD[:, None]
    records = table(full=curve(SIZES) + wobble, binary=curve(SIZES / 4) + wobble * [1, -1, 0.5])
    found = data_volume(records, arm="binary").needed
    np.testing.assert_allclose(found["times"], [4, 4, np.nan])
    assert (found["low"] < [4, 4, 1.001]).all() and (found["high"] > 4).all()
    assert (found["low"] > [3, 3, 0.999]).all()
    assert np.isfinite(found["high"][:2]).all() and np.isinf(found["high"][2])
    assert found["extrapolated"][2] == pytest.approx(4)
    assert found["text"][2] == "> 20,000 images, extrapolated x4 (x1 to unbounded)"
    assert found["text"][0].startswith("x4 (x3")
    lead = table(full=curve(SIZES) + wobble, binary=curve(SIZES * 4) - wobble * [1, 0.5, 0.5])
    ahead = data_volume(lead, arm="binary").needed
    assert ahead["text"][0].startswith("<= 200 images (x0 to x1)")
    assert ahead["times"][2] == pytest.approx(1 / 4)
    level = table(full=curve(SIZES) + wobble, binary=0.25 + wobble * [1, -1, -1])
    flat = data_volume(level, arm="binary").needed
    assert flat["extrapolated"].isna().all()
    assert flat["text"][1] == "> 20,000 images, too far to extrapolate (x10 to unbounded)"


def test_what_was_reached_stays_reached():
    noise = 0.001 * SPREAD[:, None] * [1, 1, 2]
    records = table(full=np.array([0.25, 0.29, 0.45]) + noise, binary=np.array([0.3, 0.28, 0.5]) - noise)
    assert data_volume(records, arm="binary").needed["text"][1].startswith("<= 200 images")


SIMULATED = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "verdicts.py"))
STUDIES = 200
ABOVE = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / STUDIES)  # Monte Carlo error, one in two hundred


@pytest.mark.long
@pytest.mark.parametrize("truth", ["constant", "closes", "V-shaped", "saturating", "smallest change"])
def test_simulated_studies(truth):
    found = SIMULATED["verdicts"](truth, 8, STUDIES)
    assert found["wrong"] <= ABOVE and 1 - found["covered"] <= ABOVE
    if truth == "smallest change":
        assert found["found"] == pytest.approx(0.8, abs=2.6 * np.sqrt(0.16 / STUDIES))
