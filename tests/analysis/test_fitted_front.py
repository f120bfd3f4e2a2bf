"""The curve through a front, and how sure a place on the front is."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ablate.analysis.mean_draws import draw_means, mean_intervals
from ablate.analysis.pareto import fit, front_probability
from ablate.analysis.t_interval import mean_interval
from ablate.errors import BadInput

SD = 0.018  # between seeds
WAYS = ["max", "min"]


def at(found, size):
    rows = found.curve
    return rows[np.isclose(rows["size"], size)].iloc[0]


def least_squares(values, weights):
    """The isotonic fit by its min-max formula (Barlow et al. 1972)."""
    n = len(values)

    def mean(i, j):
        return np.average(values[i : j + 1], weights=weights[i : j + 1])

    return [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


def test_the_curve_is_the_isotonic_fit_joined_in_log_size():
    random = np.random.default_rng(0)
    for _ in range(20):
        scores, sizes = random.random(9), random.permutation([1, 2, 2, 4, 8, 8, 8, 16, 64])
        found = fit(sizes, scores)
        nodes = np.unique(sizes)
        means = np.array([scores[sizes == size].mean() for size in nodes])
        expected = least_squares(means, np.array([(sizes == size).sum() for size in nodes]))
        assert [at(found, size)["accuracy"] for size in nodes] == pytest.approx(expected)
        assert found.curve["size"].iloc[[0, -1]].tolist() == pytest.approx([1, 64])  # and nothing beyond
    found = fit([1, 100, 10_000], [0.2, 0.6, 0.8])
    middle = np.interp(np.log(10), np.log(found.curve["size"]), found.curve["accuracy"])
    assert middle == pytest.approx(0.4) and found.curve["accuracy"].is_monotonic_increasing


def test_the_knee_and_the_size_for_a_loss():
    found = fit([1, 10, 100, 1000], [0.5, 0.7, 0.705, 0.71], loss=0.11)
    assert found.knee.value == pytest.approx(10) and found.within_loss.value == pytest.approx(10**0.5)
    assert fit([1, 10, 100], [0.5, 0.7, 0.71], loss=0.01).within_loss.value == pytest.approx(10)
    straight = fit([1, 10, 100, 1000], [0.5, 0.6, 0.7, 0.8])
    assert np.isnan(straight.knee).all() and "has no knee" in " ".join(straight.notes)
    flat = fit([1, 10, 100], [0.7, 0.65, 0.6])
    assert np.isnan(flat.within_loss.value) and "the smallest size" in " ".join(flat.notes)
    assert np.isnan(flat.knee.value)


def test_of_three_sizes_no_knee_is_given():
    found = fit([1, 10, 100], [[0.5, 0.51, 0.5], [0.7, 0.7, 0.71], [0.71, 0.72, 0.71]])
    assert np.isnan(found.knee).all() and np.isfinite(found.within_loss.value)
    assert [note for note in found.notes if "knee" in note] == [
        "no knee is given: a knee needs 4 sizes or more, but there are 3"
    ]


def test_an_interval_without_width_is_that_of_the_sizes_beside_it():
    sure = np.add.outer([0.1, 0.7, 0.72, 0.74], [0, 0.001, 0.002])
    found = fit([1, 10, 100, 1000], sure)
    assert found.knee == pytest.approx((10, 1, 100))
    exact = np.tile([[0.25], [0.5], [0.625], [0.75]], 3)  # without noise
    assert fit([1, 10, 100, 1000], exact, loss=0.25).within_loss == pytest.approx((10, 1, 100))
    assert fit([1, 10, 100, 1000], exact, loss=0.0625).within_loss == pytest.approx((10**2.5, 100, 1000))
    assert fit([1, 10, 100, 1000], exact, loss=1e-17).within_loss == pytest.approx((1000, 100, 1000))


def test_sizes_that_differ_by_rounding_are_one():
    with pytest.raises(BadInput, match="needs 3 different sizes or more, but got 1"):
        fit([1, 1 + 1e-13, 1 + 2e-13], [0.1, 0.2, 0.3])
    close, same = fit([1, 5, 5 * (1 + 1e-12), 9], [1, 2, 4, 5]), fit([1, 5, 5, 9], [1, 2, 4, 5])
    assert close.curve.equals(same.curve)
    assert at(fit([1, 5, 5 * (1 + 1e-8), 9], [1, 2, 4, 5]), 5)["accuracy"] == 2


def test_what_is_no_front_is_refused():
    for sizes, scores, options, reason in (
        ([1, 2, 2], [0.1, 0.2, 0.3], {}, "3 different sizes or more, but got 2"),
        ([0, 1, 2], [0.1, 0.2, 0.3], {}, "sizes must be positive"),
        ([1, 2, np.inf], [0.1, 0.2, 0.3], {}, "sizes must be positive"),
        ([1, 2], [0.1, 0.2, 0.3], {}, "one for each of 3 points"),
        ([1, 2, 3], [0.1, np.nan, 0.3], {}, "scores must be finite"),
        ([], [], {}, "scores must be finite"),
        ([1, 2, 3], np.ones((3, 1, 1, 1)), {}, "scores must be finite"),
        ([1, 2, 3], [0.1, 0.2, 0.3], {"loss": 0}, "loss > 0"),
        ([1, 2, 3], [[0.1, 0.2], [0.3], [0.4]], {}, "scores must be numbers, in rows of one length"),
        (["a", "b", "c"], [0.1, 0.2, 0.3], {}, "sizes must be numbers"),
    ):
        with pytest.raises(BadInput, match=reason):
            fit(sizes, scores, **options)


def test_a_band_covers_what_was_measured_and_says_so():
    random, sizes = np.random.default_rng(0), [1, 10, 100]
    shares = np.array([0.3, 0.6, 0.9])
    bare = fit(sizes, shares)
    assert bare.curve[["low", "high"]].isna().all(axis=None) and "no band" in bare.notes[0]
    assert np.isnan([bare.knee.low, bare.within_loss.high]).all()
    seeds = shares[:, None] + random.normal(0, SD, (3, 4))
    found = fit(sizes, seeds, samples=20_000)
    assert "seeds alone" in found.notes[0] and (found.seeds, found.images) == (4, 1)
    for size, values in zip(sizes, seeds, strict=True):  # so steep that nothing is pooled
        assert at(found, size)[["accuracy", "low", "high"]].tolist() == pytest.approx(
            mean_interval(values), abs=3e-3
        )
    images = random.random((3, 1, 2000)) < shares[:, None, None]
    found = fit(sizes, images)
    assert "images alone" in found.notes[0]
    for size, share in zip(sizes, images.mean(axis=(1, 2)), strict=True):
        half = (at(found, size)["high"] - at(found, size)["low"]) / 2
        assert half == pytest.approx(1.96 * np.sqrt(share * (1 - share) / 2000), rel=0.12)
    both = fit(sizes, random.random((3, 4, 500)) < seeds[:, :, None])
    assert (both.seeds, both.images) == (4, 500) and "covers" not in " ".join(both.notes)


def test_an_end_beyond_the_measured_sizes_is_open():
    scores = np.array([[0.595, 0.58, 0.59], [0.6, 0.6, 0.6], [0.601, 0.602, 0.601]])
    found = fit([1, 10, 100], scores)
    assert found.within_loss.low == -np.inf and found.within_loss.high < 100
    assert "may be below the smallest one measured" in " ".join(found.notes)
    noisy = [[0.5, 0.52, 0.51], [0.56, 0.53, 0.54], [0.57, 0.56, 0.565], [0.58, 0.6, 0.59]]
    found = fit([1, 10, 100, 1000], noisy)
    assert (found.knee.low, found.knee.high) == (-np.inf, np.inf)
    assert "the interval of the knee is open" in " ".join(found.notes)


def test_two_seeds_are_too_few_for_the_intervals_of_sizes():
    scores = [[0.5, 0.52], [0.58, 0.57], [0.58, 0.59], [0.58, 0.6]]
    found = fit([1, 10, 100, 1000], scores)
    assert np.isfinite(found.knee.value) and np.isnan(found.knee[1:] + found.within_loss[1:]).all()
    assert "2 seeds are too few" in " ".join(found.notes) and found.curve["low"].notna().all()


def test_the_band_covers_the_truth():
    random, sizes = np.random.default_rng(0), 2.0 ** np.arange(5)
    truth = 0.6 - 0.12 * np.exp(-np.arange(5) / 1.2)
    held = []
    for _ in range(150):
        found = fit(sizes, truth[:, None] + random.normal(0, SD, (5, 3)), samples=300)
        low, high = (
            np.interp(np.log(sizes), np.log(found.curve["size"]), found.curve[k]) for k in ("low", "high")
        )
        held.append((low <= truth) & (truth <= high))
    assert np.mean(held) > 0.92


def test_draws_have_the_spread_of_the_means():
    random = np.random.default_rng(0)
    images = random.integers(0, 2, (3, 1, 50)).astype(float)
    drawn = draw_means(images, 20_000)
    assert drawn.mean(axis=0) == pytest.approx(images.mean(axis=(1, 2)), abs=3e-3)
    assert np.cov(drawn.T) == pytest.approx(np.cov(images[:, 0], bias=True) / 50, abs=2e-4)
    seeds = random.normal(0.5, SD, (3, 8, 1))
    low, high = mean_intervals(seeds, 40_000)
    for i, j in itertools.combinations(range(3), 2):  # differences too are those of paired seeds
        drawn = draw_means(seeds, 40_000)
        ends = np.quantile(drawn[:, i] - drawn[:, j], [0.025, 0.975])
        assert ends == pytest.approx(mean_interval(seeds[i, :, 0] - seeds[j, :, 0])[1:], abs=1e-3)
        assert (low[i], high[i]) == pytest.approx(mean_interval(seeds[i, :, 0])[1:], abs=1e-3)
    assert np.isnan(mean_intervals(np.ones((2, 1, 1)))).all()


def test_the_probability_of_two_points_is_that_of_a_paired_t_test():
    random = np.random.default_rng(0)
    for seeds in (2, 3, 6):
        scores = random.normal(0.5, SD, (2, seeds))
        p = stats.ttest_rel(*scores, alternative="less").pvalue  # that the first is better
        found = front_probability(scores, [[1], [1]], WAYS, samples=4000)
        assert found == pytest.approx([p, 1 - p], abs=4 * np.sqrt(0.25 / 4000))
        again = front_probability(scores, [[1], [1]], WAYS, samples=4000)
        assert found.tolist() == again.tolist()


def test_one_seed_gives_no_probability():
    right = np.random.default_rng(0).random((2, 1, 1000)) < 0.6
    assert np.isnan(front_probability(right, [[1], [1]], WAYS)).all()
    assert np.isnan(front_probability([0.5, 0.6], [[1], [1]], WAYS)).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_two_equal_points_one_in_ten_pairs_is_called_sure(seeds):
    """With a bootstrap of the seeds it is 5 in 10 for two seeds and 3 in 10 for three."""
    random, sure = np.random.default_rng(0), 0
    for _ in range(300):
        scores = random.normal(0.6, SD, (2, seeds))
        sure += front_probability(scores, [[1], [1]], WAYS, samples=200).max() >= 0.95
    assert 0.03 < sure / 300 < 0.10 + 3 * np.sqrt(0.1 * 0.9 / 300)


def test_the_probability_of_what_is_certain():
    right = np.random.default_rng(0).random((3, 3, 1000)) < np.reshape([0.9, 0.9, 0.2], (3, 1, 1))
    right[1] = right[0]  # a twin: both stay, in every draw
    assert front_probability(right, [[5], [5], [6]], WAYS, samples=50).tolist() == [1, 1, 0]
    smallest = front_probability(right, [[5], [5], [4]], WAYS, samples=50)
    assert smallest.tolist() == [1, 1, 1]
    assert front_probability(~right, np.empty((3, 0)), ["min"], samples=50).tolist() == [1, 1, 0]
    with pytest.raises(BadInput, match="scores must be finite"):
        front_probability(np.empty((3, 0)), [[1], [1], [1]], WAYS)
    with pytest.raises(BadInput, match="samples >= 1"):
        front_probability([[0.1, 0.2]], [[1]], WAYS, samples=0)


def test_a_probability_needs_the_other_objectives_of_each_point():
    for scores in ([[0.1, 0.2], [0.1, 0.3]], [0.1, 0.2]):  # with one seed as with two
        for others in ([[1]], [[1], [np.nan]], [[1, 2], [3, 4]], [[1], [2, 3]], [["a"], ["b"]], [[1, 2]]):
            with pytest.raises(BadInput, match="others must be"):
                front_probability(scores, others, WAYS)
