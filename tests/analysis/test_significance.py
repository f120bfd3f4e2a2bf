"""What a few seeds say about a mean, against statsmodels, scipy and trying."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from ablate.analysis.significance import holm, minimum_detectable_effect, sign_flip, tost
from ablate.analysis.t_interval import estimate


def test_equivalence_against_statsmodels():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.004, 0.01, 8)
        assert estimate(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
        assert tost(values, 0.01) == pytest.approx(DescrStatsW(values).ttost_mean(-0.01, 0.01)[0])


def test_sign_flips_against_scipy_and_their_least_p():
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.5, 1, 8)
        expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(values) == pytest.approx(expected.pvalue)
    assert sign_flip(np.arange(1.0, 9)) == 2 / 2**8
    many = np.random.default_rng(0).normal(0.4, 1, 30)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, rel=0.3)


@pytest.mark.parametrize("n", [3, 8, 30])
def test_smallest_effect_against_statsmodels(n):
    power = TTestPower().power(minimum_detectable_effect(1, n, 0.05, 0.8), n, 0.05)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert minimum_detectable_effect(3, n, 0.05, 0.8) == pytest.approx(
        3 * minimum_detectable_effect(1, n, 0.05, 0.8)
    )


def test_smallest_effect_of_two_by_trying():
    values = np.random.default_rng(0).normal(minimum_detectable_effect(1, 2, 0.05, 0.8), 1, (20_000, 2))
    assert (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.long
def test_holm():
    p = np.random.default_rng(0).uniform(0, 0.3, (3, 4))
    np.testing.assert_allclose([holm(row) for row in p], [multipletests(row, method="holm")[1] for row in p])
    np.testing.assert_allclose(holm([0.03, np.nan]), [0.06, np.nan])
