"""The search without training: records are made up from the specs by a plain formula."""

import math
from functools import partial

import pytest
from conftest import run_search

from ablate.config.search_space import SpaceSpec
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.engine.plan import plan
from ablate.runs.ledger import trial_of
from ablate.runs.record import arm, blank_record, is_candidate
from ablate.search.searcher import Search

GROUPS = [f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")] + ["head"]


def study(layer, **fields):
    space = {"description": "d", "layer": layer, "objectives": ["accuracy", "size_bytes"], **fields}
    return StudySpec(question="?", space=checked(SpaceSpec, space, "space"))


def answer(spec, status="complete"):
    """More quantized layers: smaller and worse."""
    n = len(spec.layers)
    return blank_record(spec, str(n)) | {
        "status": status,
        "accuracy": 0.9 - 0.1 * n**0.5,
        "size_bytes": 1000 - 100 * n,
        "bitops": 1,
    }


run = partial(run_search, answer)


def test_the_first_points_are_the_anchors():
    first = run(Search(load_study("default").model_copy(update={"anchor_seeds": 1}), GROUPS), 4)
    assert first[0].layers == {}
    assert [{layer.weights for layer in spec.layers.values()} for spec in first[1:]] == [
        {"binary"},
        {"ternary"},
        {"binary"},
    ]
    assert list(first[1].layers) == list(first[2].layers) == GROUPS
    assert list(first[3].layers) == [
        "block1.attention",
        "block1.fc1",
        "block1.fc2",
    ]  # head and first block are full
    assert all(
        layer.activation_bits == 8 and layer.beta_multiplier == 1.0 for layer in first[1].layers.values()
    )


def test_each_anchor_has_its_seeds_before_anything_else():
    asked = load_study("default").model_copy(update={"seed": 5, "anchor_seeds": 3})
    search = Search(asked, GROUPS)
    specs = run(search, 14)
    assert [spec.seed for spec in specs] == [5, 6, 7] + [5] * 3 + [6] * 3 + [7] * 3 + [5, 5]
    assert specs[0].layers == specs[2].layers == {}  # all full
    assert [spec.layers for spec in specs[3:6]] == [spec.layers for spec in specs[9:12]]
    assert [search.is_anchor(spec) for spec in specs] == [True] * 12 + [False] * 2
    again = Search(asked, GROUPS)
    assert all(map(again.requeue, specs)) and again.requeue(specs[1]) is False
    assert not again.holds(specs[-1].model_copy(update={"seed": 6}))  # only anchors have further seeds


def test_a_plan_has_each_anchor_once(tiny_vit):
    asked = load_study("default").model_copy(update={"model": str(tiny_vit), "anchor_seeds": 3})
    arms = [(arm(spec), len(spec.layers)) for spec in plan(asked).anchors]
    assert [name for name, _ in arms] == ["full", "binary", "ternary", "binary"] and arms[3][1] < arms[1][1]


def test_further_seeds_come_on_top_of_the_points_of_a_space():
    search = Search(study({"weights": ["binary", "ternary"]}).model_copy(update={"anchor_seeds": 2}), GROUPS)
    assert (search.size, search.max_trials) == (2, 4) and len(run(search, 9)) == 4


def test_further_seeds_are_on_no_front():
    asked = study({"weights": ["binary", "ternary"]}).model_copy(update={"anchor_seeds": 2})
    records = [answer(spec) for spec in run(Search(asked, GROUPS), 4)]
    assert [is_candidate(record["spec"], asked) for record in records] == [True, False, True, False]
    tested = answer(trial_of(records[0]).model_copy(update={"test": "A"}))
    assert not is_candidate(tested["spec"], asked)


def test_a_space_of_one_point_has_one_trial():
    search = Search(study({"weights": "binary"}), GROUPS)
    assert len(run(search, 5)) == 1 and search.ask() is None and not search.pending


@pytest.mark.long
def test_no_point_is_proposed_twice():
    specs = run(Search(study({"weights": {"each": ["full", "binary"]}}), GROUPS), 60)
    assert len({spec.model_dump_json() for spec in specs}) == 60


def test_a_finite_space_ends():
    """Activation bits mean nothing where all is full: 2^3 - 1 quantized settings x 2, and one full."""
    search = Search(study({"weights": {"each": ["full", "binary"]}, "activation_bits": [4, 8]}), GROUPS[:3])
    assert search.size == 16
    assert len(run(search, 100)) == 15 and search.ask() is None and search.ask() is None


def test_points_that_exclude_each_other_are_passed_over():
    search = Search(study({"weights": "binary", "activation_bits": [1, 2], "signed": [True, False]}), GROUPS)
    assert len(run(search, 100)) == 3  # one non-negative bit does not exist


def test_reference_precisions_have_no_beta():
    search = Search(study({"weights": ["binary", "int8"], "beta_multiplier": [0.5, 1.0]}), GROUPS)
    assert sorted(
        {(layer.weights, layer.beta_multiplier) for spec in run(search, 9) for layer in spec.layers.values()}
    ) == [
        ("binary", 0.5),
        ("binary", 1.0),
        ("int8", 1.0),
    ]


def test_an_axis_without_effect_may_exclude_the_default():
    layer = {"weights": ["binary", "int8"], "beta_multiplier": {"low": 2.0, "high": 4.0}}
    search = Search(
        study(layer, recipe={"optimizer": ["adamw", "sgd"], "momentum": {"low": 0.1, "high": 0.5}}), GROUPS
    )
    assert {spec.layers["head"].weights for spec in run(search, 12)} == {"binary", "int8"}


@pytest.mark.long
def test_ranges_stay_within_their_ends_and_integers_stay_whole():
    layer = {
        "weights": "binary",
        "beta_multiplier": {"low": 0.25, "high": 4.0, "log": True},
        "activation_bits": {"low": 2, "high": 8},
    }
    search = Search(study(layer, recipe={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}), GROUPS)
    assert search.size == math.inf
    specs = run(search, 30)
    assert all(
        0.25 <= spec.layers["head"].beta_multiplier <= 4 and 1e-4 <= spec.recipe.learning_rate <= 1e-2
        for spec in specs
    )
    assert len({spec.layers["head"].activation_bits for spec in specs}) > 3
    assert specs[0].recipe.learning_rate == 1e-3 and specs[0].layers["head"].beta_multiplier == 1.0


@pytest.mark.long
def test_the_same_seed_proposes_the_same_points():
    def points(seed):
        study_spec = load_study("default").model_copy(update={"seed": seed})
        return [spec.layers for spec in run(Search(study_spec, GROUPS), 20)]

    assert points(0) == points(0) != points(1)


@pytest.mark.parametrize(
    "ending", [{"status": "failed"}, {"status": "pruned"}, {"accuracy": None}, {"accuracy": math.nan}]
)
def test_every_ending_is_told_and_nothing_stays_running(ending):
    search = Search(load_study("default"), GROUPS)
    for _ in range(15):
        spec = search.ask()
        search.tell(answer(spec) | ending)
    assert not [trial for trial in search.history.optuna_study.trials if not trial.state.is_finished()]
    assert not [trial for trial in search.history.optuna_study.trials if trial.state.name == "COMPLETE"]


@pytest.mark.long
@pytest.mark.parametrize("at", [0, 3, 17, 30])
def test_a_search_that_is_told_the_records_goes_on_as_the_first_would_have(at):
    layer = {
        "weights": {"each": ["full", "binary", "int8"]},
        "activation_bits": [4, 8, "none"],
        "beta_multiplier": [0.5, 1.0],
    }
    study_spec = study(
        layer, fraction=[0.1, 1.0], recipe={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    )
    undisturbed = run(Search(study_spec, GROUPS), 40)
    killed = Search(study_spec, GROUPS, [answer(spec) for spec in undisturbed[:at]])
    assert run(killed, 40 - at) == undisturbed[at:]


@pytest.mark.long
@pytest.mark.parametrize("at", [3, 10, 24, 30, 39])
def test_what_it_forgets_is_a_function_of_the_records_too(at, monkeypatch):
    monkeypatch.setattr("ablate.search.history.MEMORY", 8)
    study_spec = study({"weights": {"each": ["full", "binary", "ternary"]}, "beta_multiplier": [0.5, 1.0]})

    def outcome(spec):
        """Binary layers cost less accuracy than ternary ones, so that few points are on the front."""
        return answer(spec) | {
            "accuracy": 0.9 - 0.1 * sum(layer.weights == "ternary" for layer in spec.layers.values())
        }

    def go_on(search, n):
        for _ in range(n):
            search.tell(outcome(spec := search.ask()))
            yield spec

    search = Search(study_spec, GROUPS)
    undisturbed = list(go_on(search, 40))
    complete = [trial for trial in search.history.optuna_study.trials if trial.state.name == "COMPLETE"]
    assert 8 <= len(complete) <= 8 + 8 + 10  # not 40
    heir = Search(study_spec, GROUPS, [outcome(spec) for spec in undisturbed[:at]])
    assert list(go_on(heir, 40 - at)) == undisturbed[at:]


@pytest.mark.long
def test_it_forgets_while_trials_run(monkeypatch):
    monkeypatch.setattr("ablate.search.history.MEMORY", 4)
    search = Search(study({"weights": {"each": ["full", "binary", "ternary"]}}), GROUPS)
    running = [search.ask() for _ in range(3)]
    for _ in range(20):
        running.append(search.ask())
        search.tell(answer(running.pop(0)))
    assert sorted(search.pending, key=str) == sorted((spec.model_dump() for spec in running), key=str)
    for spec in running:
        search.tell(answer(spec))
    assert not search.pending and not [
        trial for trial in search.history.optuna_study.trials if not trial.state.is_finished()
    ]


def test_trials_that_a_dead_driver_had_under_way_come_first():
    study_spec = study({"weights": {"each": ["full", "binary"]}})
    search = Search(study_spec, GROUPS)
    specs = [search.ask() for _ in range(6)]
    search.tell(answer(specs[0]))
    heir = Search(study_spec, GROUPS, [answer(specs[0])])
    assert not heir.requeue(specs[0])  # recorded
    assert all(heir.requeue(spec) for spec in specs[1:]) and heir.pending == search.pending
    assert heir.ask() not in specs
    elsewhere = specs[1].model_copy(update={"model": "another"})
    assert not heir.requeue(elsewhere)  # not of this study


@pytest.mark.long
def test_it_learns():
    """After the anchors, proposals crowd near the front of a landscape with one bad layer group."""
    search = Search(study({"weights": {"each": ["full", "binary"]}}), [f"block{i}.fc1" for i in range(12)])
    harmful = 0
    for i in range(60):
        spec = search.ask()
        bad = "block3.fc1" in spec.layers
        harmful += bad and i >= 40
        record = answer(spec)
        search.tell(record | {"accuracy": 0.9 - 0.01 * len(spec.layers) - 0.6 * bad})
    assert harmful <= 6  # a blind draw would have 10 of 20


def test_calibration_makes_other_trials_only_where_scales_are_static():
    layer = {"weights": ["full", "binary"], "calibration": ["mse", "max", "percentile"]}
    trials = {
        scales: len(run(Search(study(layer | {"activation_scale": scales}), GROUPS), 9))
        for scales in ("token", "static", ("token", "static"))
    }
    assert trials == {"token": 2, "static": 4, ("token", "static"): 5}
