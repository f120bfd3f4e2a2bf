"""Scaling laws against their published formulas and finite differences."""

import numpy as np
import pytest
from scaling_cases import PAIR, PUBLISHED, noisy, published

from ablate.analysis.descent import Problem, descend, objective, polish
from ablate.analysis.law_bounds import bounds, starts
from ablate.analysis.laws import LAWS, log_loss, transformed
from ablate.analysis.scaling import fit


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


@pytest.mark.parametrize("law", ["power_floor", "chinchilla", "gap_power"])
def test_both_descents_arrive_at_the_same_objective(law):
    task = problem(law)
    theta, value = descend(task, starts(task.law, task.x, np.exp(task.log_y)))
    best = theta[np.argmin(value)]
    assert value.min() == pytest.approx(objective(task, best)[0])
    assert objective(task, polish(task, best))[0] == pytest.approx(value.min(), rel=1e-4)


def test_each_arm_may_have_a_floor_of_its_own():
    full, quantized = 1 - PAIR["quantized"], PAIR["quantized"]
    loss = full * (0.25 + 3 * PAIR["D"] ** -0.5) + quantized * (0.28 + 4.5 * PAIR["D"] ** -0.5)
    found = fit("gap_floors", PAIR, noisy(loss, 1e-4), samples=0)
    low, high = found.predict({"D": [1e8, 1e8], "quantized": [0, 1]})
    assert 100 * (high - low) == pytest.approx(3.0, abs=0.1)


def test_a_gap_may_shrink():
    loss = published("gap_power", gamma_D=-0.25, k=0.4)
    found = fit("gap_power", PAIR, noisy(loss, 1e-4), samples=100)
    assert found.parameters["gamma_D"] == pytest.approx(-0.25, abs=0.01)
    for low, high in (found.intervals["gamma_D"], found.profile["gamma_D"]):
        assert low < -0.25 + 0.01 and high > -0.25 - 0.01 and high < 0
    assert found.flags == ()


def test_an_exponent_of_either_sign_is_flagged_on_its_bound():
    drop = np.where(PAIR["D"] == PAIR["D"].min(), 0.3, 1e-9)  # a gap at the fewest images alone
    found = fit("gap_power", PAIR, published("gap_constant", delta=0) + PAIR["quantized"] * drop, samples=0)
    assert found.parameters["gamma_D"] == -5 and "gamma_D is on its lower bound" in found.flags
    assert found.profile["gamma_D"][0] == -np.inf
