"""Fits of scaling laws against regression by scipy, closed forms and simulation."""

import numpy as np
import pytest
from scaling_cases import BITS, CURVE, IMAGES, PUBLISHED, noisy, published, repeated
from scipy import stats

from ablate.analysis.descent import descend
from ablate.analysis.scaling import fit


def test_with_a_wide_huber_delta_the_power_law_is_linear_regression():
    predictors, loss = repeated(CURVE, 3), noisy(np.tile(published("power"), 3), 0.1)
    found = fit("power", predictors, loss, huber_delta=100, samples=0)
    line = stats.linregress(np.log(predictors["D"]), np.log(loss))
    assert found.parameters == pytest.approx({"B": np.exp(line.intercept), "beta": -line.slope}, rel=1e-8)
    half = stats.t.ppf(0.975, 22) * line.stderr
    assert found.profile["beta"] == pytest.approx((-line.slope - half, -line.slope + half), rel=1e-3)
    half = stats.t.ppf(0.975, 22) * line.intercept_stderr
    assert found.profile["B"] == pytest.approx(
        tuple(np.exp(line.intercept + np.array([-half, half]))), rel=1e-3
    )
    assert found.objective == pytest.approx(np.sum(found.residuals**2) / 2)


def test_a_narrow_huber_delta_ignores_an_outlier():
    loss = published("power")
    loss[3] *= 2
    assert fit("power", CURVE, loss, samples=0).parameters["beta"] == pytest.approx(0.3, rel=1e-3)
    assert abs(fit("power", CURVE, loss, huber_delta=10, samples=0).parameters["beta"] - 0.3) > 0.01


def test_the_objective_is_a_sum():
    loss = noisy(published("power"), 0.05)
    once, twice = (
        fit("power", CURVE, loss, samples=0),
        fit("power", repeated(CURVE, 2), np.tile(loss, 2), samples=0),
    )
    assert twice.objective == pytest.approx(2 * once.objective, rel=1e-6)


def test_the_bootstrap_is_that_of_its_seed():
    loss = noisy(published("power_floor"), 0.02)
    one, same, other = (fit("power_floor", CURVE, loss, samples=100, seed=seed) for seed in (0, 0, 1))
    assert one.intervals == same.intervals != other.intervals
    assert np.array_equal(one.samples, same.samples)
    assert one.parameters == other.parameters
    for name, value in one.parameters.items():
        assert one.intervals[name][0] <= value <= one.intervals[name][1]


def test_the_band_widens_beyond_the_points():
    found = fit(
        "power_floor", repeated(CURVE, 3), noisy(np.tile(published("power_floor"), 3), 0.03), samples=200
    )
    low, high = found.band({"D": [2000, 200000]})
    assert (low < found.predict({"D": [2000, 200000]})).all() and (
        found.predict({"D": [2000, 200000]}) < high
    ).all()
    assert np.log(high / low)[1] > 2 * np.log(high / low)[0]
    low, high = fit("power", CURVE, noisy(published("power"), 0.03), samples=0).band({"D": [1, 2, 3]})
    assert low.tolist() == [0, 0, 0] and high.tolist() == [np.inf] * 3


@pytest.mark.long
@pytest.mark.parametrize("delta", [1e-3, 1.0])
def test_intervals_cover_the_truth(delta):
    predictors, truth, studies = repeated(CURVE, 4), PUBLISHED["power_floor"][1], 30
    covered = {"intervals": [], "profile": []}
    for seed in range(studies):
        found = fit(
            "power_floor",
            predictors,
            noisy(np.tile(published("power_floor"), 4), 0.05, seed),
            samples=100,
            huber_delta=delta,
        )
        for kind, hits in covered.items():
            hits += [low <= truth[name] <= high for name, (low, high) in getattr(found, kind).items()]
    for kind, hits in covered.items():
        assert np.mean(hits) > 0.86, kind  # 95 %; benchmarks/coverage_scaling.py measures it closely
        assert not all(hits), kind


def test_two_points_carry_two_parameters_and_no_interval():
    found = fit("power", {"D": [100, 1000]}, [0.5, 0.3])
    assert found.parameters["beta"] == pytest.approx(np.log10(0.5 / 0.3), rel=1e-6)
    assert found.intervals == found.profile == {"B": (0, np.inf), "beta": (0, np.inf)}
    assert len(found.flags) == 1 and found.flags[0].startswith("as many points as parameters (2)")


def test_few_points_are_flagged():
    found = fit("power_floor", {"D": IMAGES[::2]}, noisy(published("power_floor")[::2], 0.01), samples=50)
    assert any("too few points (4 for 3 parameters)" in flag for flag in found.flags)


@pytest.mark.long
def test_a_floor_that_is_not_there_is_on_its_bound_and_its_profile_flat():
    loss = np.array(
        [0.80, 0.62, 0.47, 0.36, 0.26, 0.185, 0.13, 0.09]
    )  # falls faster than any power, down to the end
    found = fit("power_floor", CURVE, loss, samples=100)
    assert "E is on its lower bound" in found.flags
    assert "flat profile: the points do not bound E from below" in found.flags
    assert found.profile["E"][0] == found.intervals["E"][0] == 0 and found.profile["E"][1] < loss.min()


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_a_gap_that_is_not_there_leaves_its_exponent_open(seed):
    """Nothing depends on gamma_D there, and its variance may come out as a rounding error below 0."""
    images, quantized = (
        np.tile(np.repeat([200.0, 630.0, 2000.0, 6330.0, 20_000.0], 5), 2),
        np.repeat([0.0, 1.0], 25),
    )
    loss = (0.3 + 3 / images**0.4) * np.exp(np.random.default_rng(seed).normal(0, 0.02, 50))
    found = fit("gap_power", {"D": images, "quantized": quantized}, loss, huber_delta=0.02, samples=0)
    assert found.profile["gamma_D"] == (-np.inf, np.inf) and found.profile["k"][1] > 1e-4


def test_a_rising_error_has_its_exponent_on_the_bound():
    found = fit("power", CURVE, published("power")[::-1], samples=50)
    assert "beta is on its lower bound" in found.flags
    assert found.parameters["beta"] == 0


def test_sizes_too_alike_leave_the_floor_open():
    few = {
        name: values[np.isin(BITS["P"], (1, 8)) & (BITS["N"] < 1e6)] for name, values in BITS.items()
    }  # two N
    found = fit("precision", few, noisy(published("precision", few), 0.05), samples=0)
    assert found.flags == ("flat profile: the points do not bound E from below",)
    assert found.profile["E"][0] == 0 < found.profile["E"][1] < np.inf


def test_a_descent_that_is_cut_short_is_flagged(monkeypatch):
    from ablate.analysis import scaling

    def lazy(problem, theta):
        return descend(problem, theta, steps=1)

    monkeypatch.setattr(scaling, "descend", lazy)
    monkeypatch.setattr(scaling, "polish", lambda problem, theta: theta)
    found = fit("power_floor", CURVE, noisy(published("power_floor"), 0.02), samples=0)
    assert any(flag.startswith("the fit failed") for flag in found.flags)
