import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.importance import by_parameter
from ablate.analysis.layer_effects import by_layer
from ablate.analysis.parameters import parameters
from ablate.runs import ledger
from ablate.runs.record import FIELDS

REAL = Path(__file__).parents[2] / "results" / "layers_bits" / "ledger.jsonl"
GROUPS = ["block0.fc1", "block0.fc2", "head"]
KINDS = ["full", "binary", "ternary"]
ACCURACY = {"accuracy": "max"}


def record(kinds, accuracy, size_bytes=1.0, status="complete", fraction=1.0, recipe=None, **fields):
    layers = {
        group: {"weights": kind, **fields}
        for group, kind in zip(GROUPS, kinds, strict=False)
        if kind != "full"
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
    assert all(above.count(cause) >= 9 for cause in causes)
    assert sum(name not in causes for name in above) <= stats.binom.ppf(0.999, 30, 0.05)


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


def test_where_nothing_matters_one_in_twenty_is_above_chance():
    above = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        records = table([record(rng.choice(KINDS, 3), rng.random()) for _ in range(25)])
        found = by_parameter(records, ACCURACY, seed).table
        above += list(found["importance"] > found["chance"])
    assert len(above) == 120
    assert stats.binom.cdf(sum(above), 120, 0.05) < 0.999 and sum(above) > 0


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


def test_the_layers_intervals_cover_the_truth():
    truth = {("block0.fc1", "binary"): -0.3, ("block0.fc1", "ternary"): -0.3}
    inside = []
    for seed in range(100):
        rows = by_layer(made_up(40, seed=seed), ACCURACY).table.itertuples()
        inside += [row.low <= truth.get((row.group, row.precision), 0) <= row.high for row in rows]
    assert len(inside) == 600
    assert (
        0.92 < np.mean(inside) < 0.975
    )  # 6 a study, so not independent: 95 % within about 3 standard errors


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
    (made_up(7), "7 complete trials are too few", f"7 complete trials {NO_NOISE}; 8 that differ"),
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


def test_of_twelve_real_trials_little_can_be_told():
    assert by_parameter(real(), ACCURACY).note.startswith("accuracy: 12 complete trials are too few")
    found = by_layer(real(), ACCURACY)
    assert found.note.startswith(
        "accuracy: the trials cannot tell apart the effects of block0.attention binary"
    )
    assert (
        list(found.table["group"]) == ["block0.fc2"]
        and (found.table["low"] < 0).all()
        and (found.table["high"] > 0).all()
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
