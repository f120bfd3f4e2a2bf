"""The test of lack of fit against analysis of variance by hand, and its error rate with correlated seeds."""

import numpy as np
import pytest
from scaling_cases import CURVE, PAIR, noisy, published, repeated
from scipy import stats

from ablate.analysis.descent import Problem, descend
from ablate.analysis.lack_of_fit import lack_of_fit
from ablate.analysis.law_bounds import bounds
from ablate.analysis.laws import LAWS, transformed
from ablate.analysis.scaling import fit

SEEDS = 6
BLOCKS = np.repeat(np.arange(SEEDS), 8)
POINTS = repeated(CURVE, SEEDS)


def anova(law, predictors, loss, blocks=None):
    return fit(law, predictors, loss, samples=0, blocks=blocks).lack_of_fit


def test_without_blocks_it_is_the_classical_test():
    """Of a straight line, against sums of squares as in Draper and Smith 1998, section 2.1."""
    loss = noisy(np.tile(published("power_floor"), SEEDS), 0.05)
    x, y = np.log(POINTS["D"]), np.log(loss)
    line = stats.linregress(x, y)
    total = np.sum((y - line.intercept - line.slope * x) ** 2)
    means = y.reshape(SEEDS, 8).mean(axis=0)
    pure = np.sum((y.reshape(SEEDS, 8) - means) ** 2)
    f = ((total - pure) / 6) / (pure / 40)
    found = anova("power", POINTS, loss)
    assert found[:3] == pytest.approx((f, 6, 40), rel=1e-6) and found.p == pytest.approx(stats.f.sf(f, 6, 40))


def test_points_without_replicates_or_settings_to_spare_are_not_tested():
    assert anova("power", CURVE, noisy(published("power"), 0.05)) is None
    three = {"D": np.tile([200.0, 2000.0, 20_000.0], 4)}
    assert anova("power_floor", three, noisy(0.2 + 3 / three["D"] ** 0.4, 0.05)) is None
    assert anova("power", three, noisy(3 / three["D"] ** 0.4, 0.05)) is not None


def test_what_a_seed_adds_to_all_its_errors_does_not_hide_a_lack_of_fit():
    loss = noisy(np.tile(published("power_floor"), SEEDS), 0.005)
    spread = np.repeat(np.exp(np.random.default_rng(1).normal(0, 0.3, SEEDS)), 8)
    assert anova("power", POINTS, loss * spread).p > 0.05
    found = anova("power", POINTS, loss * spread, BLOCKS)
    assert found.p < 1e-3 and found.f == pytest.approx(anova("power", POINTS, loss, BLOCKS).f, rel=0.05)


def test_blocks_that_are_not_complete_leave_the_classical_test():
    loss = noisy(np.tile(published("power_floor"), SEEDS), 0.05)
    fewer = {"D": POINTS["D"][1:]}
    assert anova("power", fewer, loss[1:], BLOCKS[1:]) == anova("power", fewer, loss[1:])


def test_a_parameter_on_its_bound_is_not_counted():
    loss = noisy(np.tile(published("power"), SEEDS), 0.02)
    falls = loss * np.tile(np.linspace(1, 0.5, 8), SEEDS)  # ever faster: there is no floor
    found = fit("power_floor", POINTS, falls, samples=0)
    assert "E is on its lower bound" in found.flags and found.lack_of_fit.numerator == 6


def test_laws_without_noise_pass_and_others_do_not():
    loss = np.tile(published("power_floor"), SEEDS)
    assert anova("power_floor", POINTS, loss).p > 0.5 > anova("power", POINTS, loss).p
    assert anova("power_floor", POINTS, loss, BLOCKS).p > 0.5 > anova("power", POINTS, loss, BLOCKS).p


def test_a_single_fit_that_is_rejected_is_flagged():
    found = fit(
        "power", POINTS, noisy(np.tile(published("power_floor"), SEEDS), 0.005), samples=0, blocks=BLOCKS
    )
    assert any(flag.startswith("lack of fit: F(") for flag in found.flags)


def correlated(random, studies, seeds):
    """Noise of pairs as in results/data_volume: shared by the two arms, larger where images are few."""
    shared, own = random.normal(size=(2, studies, seeds, 8)), random.normal(size=(2, studies, seeds, 8))
    scale = np.geomspace(0.03, 0.008, 8)
    return np.concatenate([(shared[0] + 0.6 * own[i]) * scale for i in (0, 1)], axis=-1)


@pytest.mark.long
def test_a_law_that_holds_is_rejected_in_at_most_five_percent():
    law, pair, studies = LAWS["gap_shared"], repeated(PAIR, SEEDS), 300
    blocks, truth = np.repeat(np.arange(SEEDS), 16), np.tile(published("gap_shared"), SEEDS)
    x = transformed({name: np.asarray(values, dtype=float) for name, values in pair.items()})
    limits = bounds(law, x, truth)
    p = {"blocks": [], "classical": []}
    for noise in correlated(np.random.default_rng(0), studies, SEEDS):
        task = Problem(law, x, np.log(truth) + noise.ravel(), 0.02, *limits)
        theta = descend(task, np.log([[0.1, 5.0, np.exp(0.4), 8.0]]))[0][0]
        p["blocks"].append(lack_of_fit(task, theta, blocks).p)
        p["classical"].append(lack_of_fit(task, theta).p)
    assert np.mean(np.array(p["blocks"]) < 0.05) < 0.08  # 5 % and three standard errors
