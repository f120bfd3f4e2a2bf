"""What every sampler must do: propose no point twice, as a function of the seed and the records."""

import math

import pytest

from ablate.config.canonical import key_of
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.search.optuna_samplers import sampler_factory
from ablate.search.searcher import Search

SAMPLERS = ["tpe", "nsga2", "gp", "random", "additive"]
GROUPS = [f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")] + ["head"]
MIXED = {
    "weights": {"each": ["full", "binary", "int8"]},
    "activation_bits": ["none", 8, 2, 4],
    "beta_multiplier": [0.5, 1.0],
}


def study(sampler, layer=MIXED, **space):
    return checked(
        StudySpec,
        {"question": "?", "space": {"description": "d", "layer": layer, **space}, "sampler": sampler},
        "study",
    )


def answer(spec, status="complete"):
    """Precisions cost accuracy in their order, the head's most of all."""
    price = {"int8": 0.01, "binary": 0.05}
    cost = sum(price[layer.weights] * (1 + 4 * (group == "head")) for group, layer in spec.layers.items())
    size = 700 - sum({"int8": 75, "binary": 97}[layer.weights] for layer in spec.layers.values())
    return blank_record(spec, key_of(spec)) | {"status": status, "accuracy": 0.9 - cost, "size_bytes": size}


def run(search, n, status="complete"):
    specs = []
    while len(specs) < n and (spec := search.ask()) is not None:
        specs.append(spec)
        search.tell(answer(spec, status))
    return specs


@pytest.mark.long
@pytest.mark.parametrize(
    ("sampler", "n", "at"),
    [("tpe", 18, 12), ("nsga2", 46, 31), ("gp", 12, 11), ("random", 15, 8), ("additive", 16, 11)],
)
def test_what_it_proposes_is_a_function_of_the_seed_and_the_records(sampler, n, at):
    study_spec = study(
        sampler, fraction=[0.1, 0.3, 1.0], recipe={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    )
    undisturbed = run(Search(study_spec, GROUPS), n)
    heir = Search(study_spec, GROUPS, [answer(spec) for spec in undisturbed[:at]])
    assert run(heir, n - at) == undisturbed[at:]
    assert len({key_of(spec) for spec in undisturbed}) == n
    assert run(Search(study_spec.model_copy(update={"seed": 1}), GROUPS), 10) != undisturbed[:10]


@pytest.mark.parametrize("at", [25, 33, 47])
def test_generations_outlive_what_is_forgotten(at, monkeypatch):
    monkeypatch.setattr("ablate.search.history.MEMORY", 24)
    undisturbed = run(Search(study("nsga2"), GROUPS), 56)
    heir = Search(study("nsga2"), GROUPS, [answer(spec) for spec in undisturbed[:at]])
    assert run(heir, 56 - at) == undisturbed[at:]


@pytest.mark.long
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_ends_with_every_point_of_a_finite_space(sampler):
    search = Search(
        study(sampler, {"weights": {"each": ["full", "binary"]}, "activation_bits": [4, 8]}), GROUPS[:3]
    )
    assert len(run(search, 100)) == 15 and search.ask() is None


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("status", ["failed", "pruned"])
def test_what_has_not_ended_well_teaches_nothing(sampler, status):
    search = Search(study(sampler), GROUPS)
    assert len(run(search, 12, status)) == 12
    assert {trial.state.name for trial in search.history.optuna_study.get_trials()} == {"FAIL"}


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "additive"])
def test_it_learns(sampler):
    """In the last third the costly group stays full more often than the one in three of a random draw."""
    study_spec = study(sampler, {"weights": {"each": ["full", "int8", "binary"]}})

    def outcome(spec):
        bad = spec.layers["head"].weights != "full" if "head" in spec.layers else False
        return answer(spec) | {"accuracy": 0.9 - 0.01 * len(spec.layers) - 0.6 * bad}

    search = Search(study_spec, GROUPS)
    specs = []
    for _ in range({"gp": 18, "additive": 30, "tpe": 60, "nsga2": 100}[sampler]):
        specs.append(search.ask())
        search.tell(outcome(specs[-1]))
    late = specs[-len(specs) // 3 :]
    assert sum("head" not in spec.layers for spec in late) >= 0.6 * len(late)


def test_precisions_and_numbers_have_an_order_and_keep_their_names():
    search = Search(
        study(
            "gp",
            {"weights": {"each": ["full", "binary", "int4", "ternary"]}, "activation_bits": ["none", 8, 2]},
        ),
        GROUPS,
    )
    assert search.encoder.ranked["head.weights"] == ("binary", "ternary", "int4", "full")
    assert search.encoder.ranked["activation_bits"] == (2, 8, "none")
    point = dict.fromkeys(search.points.axes, "int4") | {"activation_bits": "none"}
    assert (
        set(search.encoder.encode(point).values()) == {2}
        and search.encoder.decode(search.encoder.encode(point)) == point
    )
    assert {layer.weights for spec in (search.ask(), search.ask()) for layer in spec.layers.values()} == {
        "binary"
    }
    unordered = Search(study("gp", {"weights": "binary", "beta": ["absmean", "least_squares", 8.0]}), GROUPS)
    assert not unordered.encoder.ranked  # a rule is neither more nor less than a number


def test_an_axis_without_effect_teaches_nothing_of_its_values():
    """Five trials with all full: any activation width is as true of them as the usual one."""
    layer = {
        "weights": ["full", "binary"],
        "activation_bits": {"low": 1, "high": 8},
        "beta_multiplier": [0.5, 1.0],
    }
    study_spec = study(
        "tpe",
        layer,
        fraction=[0.1, 0.2, 0.3, 0.4, 1.0],
        recipe={"optimizer": ["sgd", "adamw"], "momentum": [0.5, 0.9]},
    )
    points = Search(study_spec, GROUPS).points
    base = {
        "activation_bits": 4,
        "beta_multiplier": 0.5,
        "recipe.momentum": 0.5,
        "recipe.optimizer": "sgd",
        "fraction": 1.0,
    }
    full = {f: points.spec_at(base | {"weights": "full", "fraction": f}) for f in (0.1, 0.2, 0.3, 0.4, 1.0)}
    searches = [Search(study_spec, GROUPS, [answer(spec) for spec in full.values()]) for _ in range(2)]
    params, of_another = (
        [trial.params for trial in search.history.optuna_study.get_trials()] for search in searches
    )
    assert params == of_another and len({point["activation_bits"] for point in params}) > 1
    assert [point["fraction"] for point in params] == [0, 1, 2, 3, 4]
    assert set(points.idle(full[0.1])) == {"activation_bits", "beta_multiplier"}
    adamw = points.spec_at(base | {"weights": "binary", "recipe.optimizer": "adamw"})
    assert points.idle(adamw) == ["recipe.momentum"]


def test_a_single_objective_and_an_infinite_space():
    for sampler in SAMPLERS:
        study_spec = study(
            sampler,
            {"weights": "binary", "beta_multiplier": {"low": 0.5, "high": 2.0, "log": True}},
            objectives=["accuracy"],
        )
        search = Search(study_spec, GROUPS)
        assert search.size == math.inf and len(run(search, 13)) == 13


def test_an_unknown_name_is_no_sampler():
    with pytest.raises(BadInput, match="unknown sampler 'tpee'; did you mean 'tpe'"):
        sampler_factory("tpee")
