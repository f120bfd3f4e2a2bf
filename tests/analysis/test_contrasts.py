"""Several contrasts that stand together, against scipy, statsmodels and trying."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ablate.analysis import paired
from ablate.analysis.contrasts import contrasts, excludes_zero
from ablate.analysis.sensitivity import sensitivities


def test_a_family_against_scipy_and_statsmodels():
    family = np.random.default_rng(0).normal(0.5, 1, (4, 6))
    found = contrasts(family)
    tests = [stats.ttest_1samp(values, 0) for values in family]
    intervals = [test.confidence_interval(1 - 0.05 / 4) for test in tests]
    np.testing.assert_allclose(found[["low", "high"]], intervals)
    np.testing.assert_allclose(found["holm"], multipletests([t.pvalue for t in tests], method="holm")[1])
    assert (found["n"] == 6).all() and (found["contrasts"] == 4).all()


def test_one_contrast_has_its_own_interval():
    values = [0.1, 0.3, 0.2]
    (row,) = contrasts([values]).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())


def test_what_cannot_be_computed_does_not_count():
    found = contrasts([[0.1, 0.3, 0.2], [0.5, np.nan], [np.nan], [0.2, 0.1, np.nan, 0.4], [0.2, 0.2]])
    assert list(found["n"]) == [3, 1, 0, 3, 2] and (found["contrasts"] == 3).all()
    assert list(np.isfinite(found["low"])) == [True, False, False, True, False]
    assert list(found["mean"].round(9)) == pytest.approx([0.2, 0.5, np.nan, 0.233333333, 0.2], nan_ok=True)
    assert list(excludes_zero(found["low"], found["high"])) == [False] * 5  # equal values show no noise
    assert list(found["holm"].isna()) == [False, True, True, False, True]
    assert len(contrasts([])) == 0


def test_nineteen_correlated_contrasts_that_are_nothing():
    """As in a ladder: neighbours share a rung. One by one, intervals exclude 0 in far more than 5 %."""
    random, together, alone = np.random.default_rng(0), [], []
    for _ in range(300):
        rungs = random.normal(0, 1, (20, 5))  # (rungs, seeds)
        family = np.diff(rungs, axis=0)
        found = contrasts(family)
        together.append(excludes_zero(found["low"], found["high"]).any())
        alone.append((stats.ttest_1samp(family, 0, axis=1).pvalue < 0.05).any())
    assert sum(together) <= stats.binom.ppf(0.999, 300, 0.05) and sum(alone) > 100


def ladder_table(accuracies):
    """The table of a design; accuracies: by cell, one per seed."""
    rows = [
        {"cell": cell, "role": "seed", "seed": seed, "arm": "binary", "test_accuracy": value}
        for cell, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_gains_and_costs_of_a_ladder_are_one_family_and_its_means_another():
    random = np.random.default_rng(0)
    cells = ["base", "one", "two", "full", "all", "all but: one", "all but: two"]
    values = dict(zip(cells, random.normal(0.5, 0.01, (7, 5)), strict=True))
    found = paired.ladder(ladder_table(values), ["base", "one", "two"], "full").set_index("rung")
    assert (found["means"] == 4).all() and (found["contrasts"] == 5).all()  # 3 gains and 2 costs
    for name, after, before in (("gain", "two", "one"), ("cost", "all", "all but: two")):
        test = stats.ttest_1samp(values[after] - values[before], 0)
        expected = test.confidence_interval(1 - 0.05 / 5)
        assert tuple(found.loc["two", [f"{name}_low", f"{name}_high"]]) == pytest.approx(expected)
    mean = stats.ttest_1samp(values["two"], 0).confidence_interval(1 - 0.05 / 4)
    assert tuple(found.loc["two", ["low", "high"]]) == pytest.approx(mean)
    assert found["gain_holm"].notna().sum() == 3 and found["cost_holm"].notna().sum() == 2


def test_a_pair_without_a_test_accuracy_is_left_out_and_counted():
    values = {cell: [0.5, 0.52, 0.51, 0.53] for cell in ("base", "one", "two")}
    values["one"] = [0.6, np.nan, 0.63, 0.62]
    found = paired.ladder(ladder_table(values), ["base", "one", "two"], None).set_index("rung")
    assert list(found["n"]) == [4, 3, 4] and found.loc["base", "mean"] == pytest.approx(0.515)
    assert list(found["gain_n"][1:]) == [3, 3]
    assert found.loc["one", "gain"] == pytest.approx(np.mean([0.1, 0.12, 0.09]))


def test_all_rows_of_several_crossings_are_one_family():
    random = np.random.default_rng(0)
    rows = [
        (arm, images, seed, random.normal(0.5, 0.01))
        for arm in ("old", "new", "newer")
        for images in (10, 100)
        for seed in range(5)
    ]
    table = pd.DataFrame(rows, columns=["arm", "images", "seed", "test_accuracy"])
    found = paired.crossing(table, [("old", "new"), ("old", "newer"), ("old", "missing")])
    assert len(found) == 8 and (found["contrasts"] == 8).all() and (found["arm"] == "old").all()
    values = table.set_index(["arm", "images"])["test_accuracy"]
    data = values["old", 100].to_numpy() - values["old", 10].to_numpy()
    expected = stats.ttest_1samp(data, 0).confidence_interval(1 - 0.05 / 8)
    assert tuple(found.loc[0, ["low", "high"]]) == pytest.approx(expected)
    table.loc[0, "test_accuracy"] = np.nan
    assert (paired.crossing(table, [("old", "new")])["n"] == 4).all()


def test_no_group_of_a_sensitivity_costs_anything():
    """Noise alone, 19 groups, 2 precisions, 3 seeds: 78 contrasts."""
    groups = [f"g{i}" for i in range(19)]
    cells = ["full", *(f"{p}: {k}" for p in ("binary", "ternary") for k in ("all", *_each(groups)))]
    some = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        values = {cell: random.normal(0.5, 0.01, 3) for cell in cells}
        table = ladder_table(values).rename(columns={"test_accuracy": "accuracy"})
        costs = sensitivities(table.assign(loss=1 + random.normal(0, 0.01, len(table))))
        assert len(costs) == 78 and (costs["contrasts"] == 78).all()
        some.append(excludes_zero(costs["accuracy_low"], costs["accuracy_high"]).any())
    assert sum(some) <= stats.binom.ppf(0.999, 40, 0.05)


def _each(groups):
    return [f"{which} {group}" for which in ("only", "all but") for group in groups]
