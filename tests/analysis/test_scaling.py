"""Scaling laws against their published formulas, regression by scipy, closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from ablate.analysis.aicc import aicc, log_likelihood, normalizer
from ablate.analysis.choice import choose
from ablate.analysis.descent import Problem, descend, huber, objective, polish
from ablate.analysis.law_bounds import bounds, starts
from ablate.analysis.laws import LAWS, log_loss, transformed
from ablate.analysis.scaling import fit
from ablate.analysis.scaling_problem import Refused

IMAGES = np.geomspace(200, 20000, 8)
CURVE = {"D": IMAGES}
PAIR = {"D": np.tile(IMAGES, 2), "quantized": np.repeat([0, 1], 8)}
SIZES = dict(
    zip("ND", map(np.ravel, np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(200, 2e6, 6))), strict=True)
)
_GRID = np.meshgrid(np.geomspace(1e5, 1e8, 5), np.geomspace(200, 2e6, 5), [1, 2, 4, 8])
BITS = dict(zip("NDP", map(np.ravel, _GRID), strict=True))

# law: its predictors, true parameters, and its formula as published
PUBLISHED = {
    "power": (CURVE, {"B": 3.0, "beta": 0.3}, lambda D, B, beta: B / D**beta),
    "power_floor": (CURVE, {"E": 0.15, "B": 5.0, "beta": 0.4}, lambda D, E, B, beta: E + B / D**beta),
    # Hoffmann et al. 2022, re-estimated by Besiroglu et al. 2024; E and A scaled to this range
    "chinchilla": (
        SIZES,
        {"E": 0.3, "A": 48.0, "B": 21.0, "alpha": 0.3478, "beta": 0.3658},
        lambda N, D, E, A, B, alpha, beta: E + A / N**alpha + B / D**beta,
    ),
    "precision": (
        BITS,
        {"E": 0.3, "A": 48.0, "B": 21.0, "alpha": 0.35, "beta": 0.37, "gamma": 2.5},
        lambda N, D, P, E, A, B, alpha, beta, gamma: (
            E + A / (N * (1 - np.exp(-P / gamma))) ** alpha + B / D**beta
        ),
    ),
    "multiplier": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "rho": 0.3},
        lambda D, quantized, E, B, beta, rho: E + B / (np.where(quantized, rho, 1) * D) ** beta,
    ),
    "gap_shared": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "B_q": 8.0},
        lambda D, quantized, E, B, beta, B_q: E + np.where(quantized, B_q, B) / D**beta,
    ),
    "gap_constant": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "delta": 0.07},
        lambda D, quantized, E, B, beta, delta: E + B / D**beta + quantized * delta,
    ),
    "gap_free": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "B_q": 4.0, "beta_q": 0.25},
        lambda D, quantized, E, B, beta, B_q, beta_q: E + np.where(quantized, B_q / D**beta_q, B / D**beta),
    ),
    "gap_growing": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "k": 0.01, "gamma_D": 0.25},
        lambda D, quantized, E, B, beta, k, gamma_D: E + B / D**beta + quantized * k * D**gamma_D,
    ),
}


def published(law, predictors=None, **changed):
    own, parameters, formula = PUBLISHED[law]
    return formula(**(own if predictors is None else predictors), **(parameters | changed))


def noisy(loss, sd, seed=0):
    return loss * np.exp(np.random.default_rng(seed).normal(0, sd, np.shape(loss)))


def repeated(predictors, times):
    return {name: np.tile(values, times) for name, values in predictors.items()}


def problem(law, sd=0.02, delta=1e-3):
    predictors = PUBLISHED[law][0]
    x, loss = (
        transformed({name: np.asarray(v, dtype=float) for name, v in predictors.items()}),
        noisy(published(law), sd),
    )
    return Problem(LAWS[law], x, np.log(loss), delta, *bounds(LAWS[law], x, loss))


def test_every_law_is_tested():
    assert set(PUBLISHED) == set(LAWS)


@pytest.mark.parametrize("law", LAWS)
def test_noiseless_points_give_the_law_back(law):
    predictors, parameters, _ = PUBLISHED[law]
    found = fit(law, predictors, published(law), samples=0)
    assert list(found.parameters) == list(LAWS[law].parameters)
    assert found.parameters == pytest.approx(parameters, rel=1e-4)
    beyond = predictors | {"D": predictors["D"] * 10}
    np.testing.assert_allclose(found.predict(predictors), published(law), rtol=1e-6)
    np.testing.assert_allclose(found.predict(beyond), published(law, beyond), rtol=1e-6)
    assert found.flags == ()


@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_those_of_finite_differences(law):
    task = problem(law, delta=0.02)  # residuals on both sides of delta
    grid = starts(task.law, task.x, np.exp(task.log_y))
    step = 1e-6
    near = descend(task, grid[:1])[0] + 0.01
    for theta in np.concatenate([near, grid[np.random.default_rng(0).choice(len(grid), 3)]]):
        nudges = step * np.eye(len(theta))
        ahead, behind = (log_loss(task.law, theta + sign * nudges, task.x)[0] for sign in (1, -1))  # (k, n)
        np.testing.assert_allclose(
            log_loss(task.law, theta[None], task.x)[1][0], (ahead - behind).T / 2 / step, atol=1e-7, rtol=1e-6
        )
        ahead, behind = ([objective(task, theta + sign * nudge)[0] for nudge in nudges] for sign in (1, -1))
        np.testing.assert_allclose(
            objective(task, theta)[1], np.subtract(ahead, behind) / 2 / step, atol=1e-7, rtol=1e-5
        )


@pytest.mark.parametrize("law", ["power_floor", "chinchilla", "gap_growing"])
def test_both_descents_arrive_at_the_same_objective(law):
    task = problem(law)
    theta, value = descend(task, starts(task.law, task.x, np.exp(task.log_y)))
    best = theta[np.argmin(value)]
    assert value.min() == pytest.approx(objective(task, best)[0])
    assert objective(task, polish(task, best))[0] == pytest.approx(value.min(), rel=1e-4)


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


REFUSED = [
    ("power", {"D": [1, 2, 3]}, [0.5, 0.0, 0.2], r"loss\[1\] is 0.0"),
    ("power", {"D": [1, 2, 3]}, [0.5, -0.1, 0.2], r"loss\[1\] is -0.1"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.3, np.nan], r"loss\[2\] is nan"),
    ("power", {"D": [1, 2, 3]}, [np.inf, 0.3, 0.2], r"loss\[0\] is inf"),
    ("power", {"D": [0, 2, 3]}, [0.5, 0.3, 0.2], r"D must be above 0 and finite, but D\[0\] is 0.0"),
    ("power", {"D": [1, np.nan, 3]}, [0.5, 0.3, 0.2], r"D\[1\] is nan"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.3], "a loss for each D, but got 3 D"),
    ("power", {"D": [[1, 2]]}, [[0.5, 0.3]], r"shape \(1, 2\)"),
    ("power", {"D": []}, [], "needs as many different D, but got 0"),
    ("power", {"D": [5, 5, 5]}, [0.5, 0.3, 0.2], "needs more than one D, but all 3 points have 5"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.5, 0.5], "the loss is 0.5 at all 3 points"),
    ("power_floor", {"D": [1, 2]}, [0.5, 0.3], "3 parameters and needs as many different D, but got 2"),
    (
        "power_floor",
        {"D": [1, 2, 1, 2]},
        [0.5, 0.3, 0.6, 0.2],
        "3 parameters and needs as many different D, but got 2",
    ),
    ("chinchilla", {"D": IMAGES}, published("power"), "needs N, D; missing: N"),
    (
        "chinchilla",
        {"D": IMAGES, "N": np.full(8, 1e6)},
        published("power"),
        "needs more than one N, but all 8 points have 1e",
    ),
    (
        "precision",
        BITS | {"P": np.full(100, 4)},
        published("precision"),
        "needs more than one P, but all 100 points have 4",
    ),
    (
        "multiplier",
        {"D": IMAGES, "quantized": np.ones(8)},
        published("power"),
        "needs more than one quantized",
    ),
    (
        "multiplier",
        {"D": IMAGES, "quantized": np.arange(8)},
        published("power"),
        r"quantized must be 0 or 1, but quantized\[2\]",
    ),
    ("linear", {"D": [1, 2, 3]}, [0.5, 0.3, 0.2], "unknown law 'linear'; known: power, "),
]


@pytest.mark.parametrize(("law", "predictors", "loss", "message"), REFUSED)
def test_points_that_cannot_carry_a_law_are_refused(law, predictors, loss, message):
    with pytest.raises(Refused, match=message) as refusal:
        fit(law, predictors, loss)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "options", [{"huber_delta": 0}, {"huber_delta": np.nan}, {"confidence": 1.0}, {"samples": -1}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(Refused, match="must hold, but got"):
        fit("power", CURVE, published("power"), **options)


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
    found = fit("gap_growing", {"D": images, "quantized": quantized}, loss, huber_delta=0.02, samples=0)
    assert found.profile["gamma_D"] == (0, np.inf) and found.profile["k"][1] > 1e-4


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


@pytest.mark.parametrize("delta", [1e-3, 0.05, 10])
def test_the_density_that_aicc_rests_on_integrates_to_one(delta):
    r = np.append(0, np.geomspace(1e-9, 1e5, 100_000))
    for phi in (1e-6, 1e-3, 1e-1):
        assert normalizer(phi, delta) == pytest.approx(
            2 * np.trapezoid(np.exp(-huber(r, delta) / phi), r), rel=1e-6
        )


def test_aicc_is_the_gaussian_and_the_laplace_one_at_either_end():
    found = fit(
        "power", repeated(CURVE, 2), noisy(np.tile(published("power"), 2), 0.05), huber_delta=100, samples=0
    )
    n, k = 16, 3  # B, beta and the dispersion
    variance = np.mean(found.residuals**2)
    assert aicc(found) == pytest.approx(
        n * np.log(2 * np.pi * variance) + n + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    )
    size = np.mean(np.abs(found.residuals))
    assert log_likelihood(found.residuals, 1e-9) == pytest.approx(-n * np.log(2 * size) - n, rel=1e-6)


def test_aicc_is_refused_where_it_is_not_defined():
    loss = noisy(published("power")[:4], 0.02)
    with pytest.raises(Refused, match=r"`n > k \+ 1`, but got n=4 points and k=3"):
        aicc(fit("power", {"D": IMAGES[:4]}, loss, samples=0))
    found = choose(["power", "power_floor"], {"D": IMAGES[:4]}, loss)
    assert found.table["aicc"].isna().all() and found.table["held_out"].notna().all()
    assert sum("AICc needs" in sentence for sentence in found.undecided) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("truth", "rivals"),
    [
        ("power_floor", ["power", "power_floor"]),
        ("gap_constant", ["gap_shared", "gap_constant", "gap_free"]),
        ("gap_growing", ["gap_shared", "gap_constant", "gap_growing"]),
        ("gap_shared", ["gap_shared", "gap_constant"]),
    ],
)
def test_the_law_that_made_the_points_is_chosen(truth, rivals):
    predictors = repeated(PUBLISHED[truth][0], 6)
    found = choose(rivals, predictors, noisy(np.tile(published(truth), 6), 0.01))
    assert found.best == truth
    assert found.table["delta_aicc"].idxmin() == truth and found.table["held_out"].notna().all()
    assert set(found.fits) == set(rivals)


def test_what_cannot_be_told_apart_is_said():
    found = choose(
        ["multiplier", "gap_shared"], PAIR, noisy(published("multiplier"), 0.02)
    )  # one curve, two ways to write it
    assert found.best is None
    assert any(
        sentence.startswith("AICc cannot tell multiplier, gap_shared apart") for sentence in found.undecided
    )
    assert any(sentence.startswith("the largest D, held out, cannot tell") for sentence in found.undecided)


def test_a_refused_rival_is_named_and_the_others_are_compared():
    found = choose(["power", "power_floor", "chinchilla"], CURVE, noisy(published("power_floor"), 0.001))
    assert found.best == "power_floor" and set(found.fits) == {"power", "power_floor"}
    assert any(
        sentence.startswith("chinchilla: ") and "missing: N" in sentence for sentence in found.undecided
    )


def test_holding_out_is_refused_where_too_little_is_left():
    found = choose(
        ["power", "power_floor"],
        {"D": IMAGES[[0, 3, 6] * 4]},
        noisy(published("power_floor")[[0, 3, 6] * 4], 0.01),
    )
    assert any("power_floor: without the largest D, " in sentence for sentence in found.undecided)
    assert np.isnan(found.table.loc["power_floor", "held_out"]) and found.table["aicc"].notna().all()


def test_a_choice_of_nothing_is_refused():
    with pytest.raises(Refused, match="two laws or more"):
        choose(["power"], CURVE, published("power"))
    with pytest.raises(Refused, match=r"no law can be fitted: power: losses must be above 0"):
        choose(["power", "power_floor"], CURVE, np.zeros(8))
