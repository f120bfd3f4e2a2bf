"""What a few seeds say about a mean, against statsmodels, scipy and trying."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from ablate.analysis.significance import holm, minimum_detectable_effect
from ablate.analysis.t_interval import estimate


def test_p_against_scipy():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.004, 0.01, 8)
        assert estimate(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize("n", [3, 8, 30])
def test_smallest_effect_against_statsmodels(n):
    smallest = minimum_detectable_effect(1 / np.sqrt(n), n - 1, 0.05, 0.8)  # of n values whose SD is 1
    assert TTestPower().power(smallest, n, 0.05) == pytest.approx(0.8, abs=1e-6)
    assert minimum_detectable_effect(3 / np.sqrt(n), n - 1, 0.05, 0.8) == pytest.approx(3 * smallest)


def test_smallest_effect_of_two_by_trying():
    smallest = minimum_detectable_effect(1 / np.sqrt(2), 1, 0.05, 0.8)
    values = np.random.default_rng(0).normal(smallest, 1, (20_000, 2))
    assert (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
    assert minimum_detectable_effect(1, 1, 0.05, 0.99) > minimum_detectable_effect(1, 1, 0.05, 0.9)


@pytest.mark.long
def test_holm():
    p = np.random.default_rng(0).uniform(0, 0.3, (3, 4))
    np.testing.assert_allclose([holm(row) for row in p], [multipletests(row, method="holm")[1] for row in p])
    np.testing.assert_allclose(holm([0.03, np.nan]), [0.06, np.nan])
