import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from ablate.analysis.covariates import covariates
from ablate.analysis.importance import by_parameter
from ablate.analysis.layer_effects import by_layer
from ablate.analysis.parameters import parameters, precisions
from ablate.analysis.ped_anova import PRIOR_WEIGHT, _cut, best_trials, divergences
from ablate.runs import ledger
from ablate.runs.record import FIELDS

RESULTS = Path(__file__).parents[2] / "results"
REAL = RESULTS / "layers_bits" / "ledger.jsonl"
GROUPS = ["block0.fc1", "block0.fc2", "head"]
MANY = [*GROUPS, *(f"block{i}.fc1" for i in range(1, 17))]
KINDS = ["full", "binary", "ternary"]
ACCURACY = {"accuracy": "max"}


def record(kinds, accuracy, size_bytes=1.0, status="complete", fraction=1.0, recipe=None, **fields):
    layers = {
        group: {"weights": kind, **fields} for group, kind in zip(MANY, kinds, strict=False) if kind != "full"
    }
    spec = {"layers": layers, "recipe": recipe or {"epochs": 2}, "fraction": fraction}
    return {"spec": spec, "status": status, "accuracy": accuracy, "size_bytes": size_bytes}


def table(records):
    return pd.DataFrame(records, columns=["spec", "status", "accuracy", "size_bytes"])


def real():
    return pd.DataFrame(ledger.read(REAL), columns=list(FIELDS))


def made_up(n=120, noise=0.02, seed=0):
    """Quantizing fc1 costs 0.3 accuracy, 2-bit activations 0.1, nothing else any; bytes are the layers'."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(n):
        kinds, bits = rng.choice(KINDS, 3), int(rng.choice([2, 8]))
        accuracy = 0.9 - 0.3 * (kinds[0] != "full") - 0.1 * (bits == 2) + rng.normal(0, noise)
        size_bytes = 1000 + sum((100, 200, 400)[i] * (kind == "full") for i, kind in enumerate(kinds))
        records.append(
            record(kinds, accuracy, size_bytes, activation_bits=bits, learning_rate=float(rng.random()))
        )
    return table(records)


def test_parameters_are_named_as_a_search_names_its_axes():
    found = parameters(real())
    groups = [f"block{i}.{name}" for i in range(6) for name in ("attention", "fc1", "fc2")] + ["head"]
    assert sorted(found) == sorted(
        [*(f"{group}.weights" for group in groups), "activation_bits", "beta_multiplier"]
    )
    assert found.loc[0].notna().sum() == len(groups)  # all full: no activations are quantized
    assert set(found["block0.fc1.weights"]) == {"full", "binary", "ternary"}


def test_parameters_of_layers_on_their_own_and_of_the_recipe():
    one = record(
        ["binary", "int8", "full"],
        0.5,
        activation_bits=8,
        beta_multiplier=2.0,
        recipe={"warmup": 0.1, "clip_norm": None},
    )
    two = record(
        ["binary", "binary", "full"],
        0.5,
        activation_bits=8,
        beta_multiplier=1.0,
        recipe={"warmup": 0.1, "clip_norm": 1.0},
    )
    one["spec"]["layers"]["block0.fc2"]["beta_multiplier"] = 1.0  # as a trial leaves what has no effect
    two["spec"]["layers"]["block0.fc1"]["activation_bits"] = 4  # each layer has its own
    found = parameters(table([one, two]))
    assert found.to_dict("list") == {
        "beta_multiplier": [2.0, 1.0],  # int8 weights have none, so the layers agree
        "block0.fc1.activation_bits": [8, 4],
        "block0.fc2.weights": ["int8", "binary"],
        "recipe.clip_norm": ["none", 1.0],
    }


def test_groups_that_always_go_together_are_one_parameter():
    found = parameters(table([record(["binary"] * 3, 0.5), record(["full"] * 3, 0.6, fraction=0.5)]))
    assert found.to_dict("list") == {"fraction": [1.0, 0.5], "weights": ["binary", "full"]}


def test_what_matters_is_found_and_what_does_not_is_no_more_than_chance():
    causes = {"block0.fc1.weights", "activation_bits"}
    above = []
    for seed in range(10):
        found = by_parameter(made_up(seed=seed), {"accuracy": "max", "size_bytes": "min"})
        assert found.note == ""
        shares = found.table[found.table["objective"] == "accuracy"].set_index("parameter")
        assert shares["importance"].sum() == pytest.approx(1) and shares["importance"].is_monotonic_decreasing
        assert shares.index[0] == "block0.fc1.weights"
        above += list(shares.index[shares["importance"] > shares["chance"]])
        assert (
            shares.loc["head.weights", "trials"] == 120
            and 100 < shares.loc["activation_bits", "trials"] < 120
        )
        shares = found.table[found.table["objective"] == "size_bytes"].set_index("parameter")
        assert set(shares.index[:3]) == {
            f"{group}.weights" for group in GROUPS
        }  # the smallest have none at full
    assert above.count("block0.fc1.weights") == 10 and above.count("activation_bits") >= 7
    assert sum(name not in causes for name in above) <= stats.binom.ppf(0.999, 10, 0.05)


def test_importance_is_of_being_good_not_of_being_bad():
    rows = [record([("binary", "full")[i % 5 > 0], ("binary", "full")[i % 7 > 0]], 0.0) for i in range(140)]
    for i, row in enumerate(rows):
        row["accuracy"] = (
            0.5 + 0.3 * (i % 5 == 0) - 0.3 * (i % 7 == 0) * (i % 5 > 0)
        )  # fc1 makes the best, fc2 the worst
    best = by_parameter(table(rows), {"accuracy": "max"}).table.set_index("parameter")["importance"]
    last = by_parameter(table(rows), {"accuracy": "min"}).table.set_index("parameter")["importance"]
    assert best["block0.fc1.weights"] > 0.9 and last["block0.fc2.weights"] > 0.5


def test_five_trials_at_the_least_are_the_best_ones():
    rows = [record(["full" if i < 5 else "binary"], -i, fraction=0.5 if i < 2 else 1.0) for i in range(20)]
    found = by_parameter(table(rows), ACCURACY).table
    assert list(found["parameter"]) == [
        "block0.fc1.weights",
        "fraction",
    ]  # of the two best, fraction would be first


def test_where_nothing_matters_one_table_in_twenty_has_a_row_above_chance():
    """19 groups of noise. With a bound for each row, most tables have such a row."""
    above = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        records = table([record(rng.choice(KINDS, 19), rng.random()) for _ in range(80)])
        found = by_parameter(records, ACCURACY, seed).table
        assert len(found) == 19
        above.append((found["importance"] > found["chance"]).any())
    assert sum(above) <= stats.binom.ppf(0.999, 60, 0.05)


def test_a_parameter_with_many_values_does_not_widen_the_bound_of_one_with_two():
    rng = np.random.default_rng(0)
    rows = [
        record([rng.choice(KINDS[:2])], rng.random(), fraction=float(rng.integers(1, 11))) for _ in range(200)
    ]
    chance = by_parameter(table(rows), ACCURACY).table.set_index("parameter")["chance"]
    assert chance["fraction"] > 2 * chance["block0.fc1.weights"]


def test_divergences_against_optuna():
    points = parameters(made_up(60)).assign(rare=pd.Series([None] * 50 + ["a", "b"] * 5, dtype=object))
    losses = np.random.default_rng(0).normal(size=(3, 60)).round(1)  # with ties
    for each in losses:
        best = best_trials(each)
        (found,) = divergences(points, best[None])
        scaled = found * (len(best) / 60) ** 2  # Optuna's share of the best trials
        assert dict(zip(points, scaled, strict=True)) == pytest.approx(by_optuna(points, each), rel=1e-6)


def by_optuna(points, losses):
    """Pearson divergences by Optuna, of categorical parameters; numbers are cut as ours are."""
    choices = {name: _cut(points[name]) for name in points}
    axes = {name: CategoricalDistribution(sorted(set(v.dropna()), key=str)) for name, v in choices.items()}
    study = optuna.create_study()
    for i in range(len(points)):
        params = {name: values[i] for name, values in choices.items() if values[i] is not None}
        distributions = {name: axes[name] for name in params}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=losses[i]))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=len(best_trials(losses)) / len(losses))
    evaluator._prior_weight = PRIOR_WEIGHT
    return evaluator.evaluate(study, list(points))


@pytest.mark.long
def test_importance_is_the_same_in_every_process():
    code = """
from test_importance import by_layer, by_parameter, made_up
print(by_parameter(made_up(40), {"accuracy": "max"}), by_layer(made_up(40), {"accuracy": "max"}))
"""
    env = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (
        done.stdout == f"{by_parameter(made_up(40), ACCURACY)} {by_layer(made_up(40), ACCURACY)}\n"
        and done.stderr == ""
    )


def test_a_single_group_is_a_two_sample_t_interval():
    rng = np.random.default_rng(0)
    full, binary = rng.normal(0.6, 0.05, 7), rng.normal(0.5, 0.05, 5)
    records = table([record(["full"], a) for a in full] + [record(["binary"], a) for a in binary])
    found = by_layer(records, ACCURACY)
    expected = stats.ttest_ind(binary, full).confidence_interval(0.95)
    (row,) = found.table.to_dict("records")
    assert (row["objective"], row["group"], row["precision"], row["trials"]) == (
        "accuracy",
        "block0.fc1",
        "binary",
        5,
    )
    assert (row["effect"], row["low"], row["high"]) == pytest.approx((binary.mean() - full.mean(), *expected))
    assert found.note == ""


def test_the_layers_intervals_cover_the_truth_together():
    truth = {("block0.fc1", "binary"): -0.3, ("block0.fc1", "ternary"): -0.3}
    inside = []
    for seed in range(100):
        found = by_layer(made_up(40, seed=seed), ACCURACY).table
        assert len(found) == 6 and (found["contrasts"] == 6).all()
        rows = found.itertuples()
        inside.append(all(row.low <= truth.get((row.group, row.precision), 0) <= row.high for row in rows))
    assert stats.binom.ppf(0.001, 100, 0.95) <= sum(inside)


def test_effects_are_those_of_ordinary_least_squares_with_adjusted_intervals():
    rng = np.random.default_rng(0)
    kinds = rng.choice(["full", "binary"], (30, 2))
    accuracy = 0.6 - 0.1 * (kinds[:, 0] == "binary") + rng.normal(0, 0.02, 30)
    found = by_layer(table(list(map(record, kinds, accuracy))), ACCURACY).table
    fit = OLS(accuracy, np.column_stack([np.ones(30), kinds == "binary"])).fit()
    np.testing.assert_allclose(found["effect"], fit.params[1:])
    np.testing.assert_allclose(found[["low", "high"]], fit.conf_int(0.05 / 2)[1:])
    np.testing.assert_allclose(found["holm"], multipletests(fit.pvalues[1:], method="holm")[1])


def bits_beside_block_0(together, n=200):
    """No layer matters; 2 bits cost 10 points, and go with block 0 with a probability."""
    rng, records = np.random.default_rng(0), []
    for _ in range(n):
        kinds = rng.choice(["full", "binary"], 3)
        bits = 2 if (kinds[0] == "binary") == (rng.random() < together) else 8
        records.append(record(kinds, 0.6 - 0.1 * (bits == 2) + rng.normal(0, 0.02), activation_bits=bits))
    return table(records)


def test_what_goes_with_a_layer_is_not_laid_at_its_door():
    records = bits_beside_block_0(0.9)
    accuracy, quantized = records["accuracy"], precisions(list(records["spec"]))["block0.fc1"] == "binary"
    assert accuracy[quantized].mean() - accuracy[~quantized].mean() < -0.06  # as it looks alone
    found = by_layer(records, ACCURACY)
    assert found.covariates == ("activation_bits",) and found.note == ""
    row = found.table.set_index("group").loc["block0.fc1"]
    assert row["low"] < 0 < row["high"] and abs(row["effect"]) < 0.02


def test_what_always_goes_with_a_layer_is_not_told_apart_from_it():
    records = bits_beside_block_0(1.0)
    found = by_layer(records[records["spec"].map(lambda spec: bool(spec["layers"]))], ACCURACY)
    assert found.note == (
        "accuracy: the trials cannot tell apart the effects of block0.fc1 binary, activation_bits"
    )
    assert list(found.table["group"]) == ["block0.fc2", "head"] and (found.table["contrasts"] == 2).all()


def test_a_quantized_layer_is_judged_at_the_average_of_its_own_fields():
    """Two groups with bits of their own; 2 bits of the first cost 10 points, being quantized nothing."""
    rng, records = np.random.default_rng(0), []
    for _ in range(300):
        kinds, bits = rng.choice(["full", "binary"], 2), rng.choice([2, 8], 2, p=[0.25, 0.75])
        accuracy = 0.6 - 0.1 * (kinds[0] == "binary" and bits[0] == 2) + rng.normal(0, 0.01)
        row = record(kinds, accuracy, activation_bits=8)
        for group, own in zip(GROUPS, bits, strict=False):
            if group in row["spec"]["layers"]:
                row["spec"]["layers"][group]["activation_bits"] = int(own)
        records.append(row)
    found = by_layer(table(records), ACCURACY)
    assert found.covariates == ("block0.fc1.activation_bits", "block0.fc2.activation_bits")
    effects = found.table.set_index("group")["effect"]
    assert effects["block0.fc1"] == pytest.approx(-0.025, abs=0.006)
    assert effects["block0.fc2"] == pytest.approx(0, abs=0.006)


def test_rates_words_and_flags_of_the_recipe_are_covariates():
    rng, records = np.random.default_rng(0), []
    for _ in range(200):
        kinds = rng.choice(["full", "binary"], 2)
        rate = float(10 ** rng.normal(-3 + (kinds[0] == "binary"), 0.5))
        clip = [None, 0.5, 1.0][rng.integers(3)]
        recipe = {"learning_rate": rate, "clip_norm": clip, "augment": bool(rng.random() < 0.5)}
        accuracy = 0.6 - 0.05 * np.log10(rate / 1e-3) ** 2 + 0.05 * (clip is None) + rng.normal(0, 0.01)
        records.append(record(kinds, accuracy, recipe=recipe, fraction=float(rng.choice([0.1, 1.0]))))
    found = by_layer(table(records), ACCURACY)
    assert found.covariates == (
        "fraction",
        "recipe.augment",
        "recipe.clip_norm",
        "recipe.learning_rate",
    )
    assert ((found.table["low"] < 0) & (found.table["high"] > 0)).all()
    assert (found.table["high"] - found.table["low"]).max() < 0.02  # the noise, not the rate's 5 points


def test_bits_and_beta_halve_the_residuals_of_a_real_search():
    records = pd.DataFrame(
        ledger.read(RESULTS / "search_table_random" / "ledger.jsonl"), columns=list(FIELDS)
    )
    kinds, accuracy = precisions(list(records["spec"])), records["accuracy"].to_numpy(float)
    layers = np.column_stack([np.ones(len(records)), pd.get_dummies(kinds, drop_first=True, dtype=float)])
    both = np.column_stack([layers, *(column for _, column in covariates(records))])
    plain, adjusted = (np.sqrt(OLS(accuracy, design).fit().mse_resid) for design in (layers, both))
    assert (100 * plain, 100 * adjusted) == pytest.approx((7.9, 3.6), abs=0.05)
    assert {name for name, _ in covariates(records)} == {"activation_bits", "beta_multiplier"}


def test_bytes_add_up_exactly():
    found = by_layer(made_up(30), {"size_bytes": "min"}).table.set_index(["group", "precision"])
    for group, effect in zip(GROUPS, (-100, -200, -400), strict=True):
        for kind in ("binary", "ternary"):
            assert tuple(found.loc[(group, kind), ["effect", "low", "high"]]) == pytest.approx((effect,) * 3)


def test_without_full_precision_the_usual_one_is_the_base():
    records = table(
        [
            record([kind], a)
            for kind, a in [
                ("binary", 0.1),
                ("ternary", 0.4),
                ("ternary", 0.6),
                ("binary", 0.3),
                ("ternary", 0.5),
            ]
        ]
    )
    (row,) = by_layer(records, ACCURACY).table.to_dict("records")
    assert row["precision"] == "binary" and row["effect"] == pytest.approx(-0.3)


def test_what_a_design_cannot_tell_apart_is_said():
    rng = np.random.default_rng(1)
    kinds = [(a, a, b) for a, b in rng.choice(["full", "binary"], (30, 2))]  # fc1 and fc2 always go together
    records = table([record(k, 0.9 - 0.2 * (k[0] == "binary") - 0.1 * (k[2] == "binary")) for k in kinds])
    found = by_layer(records, ACCURACY)
    assert list(found.table["group"]) == ["head"] and found.table["effect"].item() == pytest.approx(-0.1)
    assert (
        found.note
        == "accuracy: the trials cannot tell apart the effects of block0.fc1 binary, block0.fc2 binary"
    )


CONSTANT = table([record([kind], 0.5) for kind in KINDS * 10])
EQUAL = table([record(["binary"], i / 30) for i in range(30)])
NO_NOISE = "leave nothing to estimate the noise from"


@pytest.mark.parametrize("records, parameter, layer", [
    (table([]), "0 complete trials are too few", "no layer group has two precisions in the 0"),
    (made_up(30).assign(status="failed"), "0 complete trials are too few", "no layer group has two"),
    (made_up(30).assign(accuracy=None), "0 complete trials are too few", "no layer group has two"),
    (made_up(19), "19 complete trials are too few; 20 or more", ""),
    (CONSTANT, "the best trials are no better than the rest", "it is the same in all 30"),
    (EQUAL, "nothing varies in the 30", "no layer group has two"),
    (made_up(7), "7 complete trials are too few", f"7 complete trials {NO_NOISE}; 11 that differ"),
])  # fmt: skip
def test_too_little_gives_a_reason_and_no_number(records, parameter, layer):
    for find, reason in ((by_parameter, parameter), (by_layer, layer)):
        found = find(records, ACCURACY)
        if reason:
            assert len(found.table) == 0 and found.note.startswith(f"accuracy: {reason}")
            assert "objective" in found.table
        else:
            assert len(found.table) and found.note == ""
    assert "latency_ms" in by_parameter(real(), {"latency_ms": "min"}).note


def test_of_a_few_real_trials_little_can_be_told():
    trials = real()
    assert by_parameter(trials, ACCURACY).note.startswith("accuracy: 16 complete trials are too few")
    found = by_layer(trials, ACCURACY)  # the anchors' two seeds give the noise, but no effect is alone
    names = "accuracy: the trials cannot tell apart the effects of block0.attention binary"
    assert found.note.startswith(names) and not len(found.table)
    found = by_layer(trials[trials["seed"] == 0], ACCURACY)
    assert "12 complete trials leave nothing to estimate the noise from" in found.note and not len(
        found.table
    )


def test_only_complete_trials_count():
    more = pd.concat(
        [made_up(40), made_up(5, seed=9).assign(status="pruned"), made_up(3, seed=8).assign(accuracy=None)]
    )
    for find in (by_parameter, by_layer):
        pd.testing.assert_frame_equal(find(more, ACCURACY).table, find(made_up(40), ACCURACY).table)


def test_the_ledgers_of_two_runs_can_be_joined():
    both = pd.concat([made_up(20), made_up(20, seed=1)])  # whose rows are numbered alike
    pd.testing.assert_frame_equal(
        by_parameter(both, ACCURACY).table, by_parameter(both.reset_index(), ACCURACY).table
    )
