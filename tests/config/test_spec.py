import tomllib
from fnmatch import fnmatchcase

import pytest
import tomli_w

from ablate.cli import main, overrides
from ablate.config import objectives
from ablate.config.builtin import KNOWN, bundled, names
from ablate.config.objectives import OBJECTIVES
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import LayerSpec, TrialSpec, checked
from ablate.data import datasets
from ablate.errors import BadInput
from ablate.runs.run import _toml
from ablate.search.experiment_design import Design
from ablate.search.searcher import Search

GROUPS = [f"block{i}.{role}" for i in range(6) for role in ("attention", "fc1", "fc2")] + ["head"]
SPACE = {"description": "d", "layer": {"weights": "binary"}}


@pytest.mark.parametrize("name", names("search_spaces"))
def test_every_built_in_space_loads_and_proposes(name):
    space = load_space(name)
    assert space.name == name and space.description
    chosen = [group for group in GROUPS if any(fnmatchcase(group, pattern) for pattern in space.groups)]
    search = Search(StudySpec(question="?", space=space), chosen)
    specs = [search.ask() for _ in range(6)]
    assert len({str(spec) for spec in specs}) == 6 and None not in specs


@pytest.mark.parametrize("name", names("studies"))
def test_every_built_in_study_loads_and_says_what_it_is(name):
    study = load_study(name)
    assert (
        study.question
        and study.source
        and study.cost
        and study.expected
        and study.command.startswith("ablate ")
    )
    assert (
        study.model in (*bundled("model"), *KNOWN, "google/vit-base-patch16-224-in21k")
        and study.data in datasets.known()
        and study.objectives == study.space.objectives
    )


def test_layers_bits_is_the_space_of_the_issue():
    space = load_space("layers_bits")
    assert space.objectives == ("accuracy", "size_bytes", "bitops")
    assert load_space("layers_bits_data").objectives == (*space.objectives, "images")


def test_a_resolved_study_reads_back_as_itself(tmp_path):
    study = load_study("default").model_copy(update={"hours": None, "space": load_space("bits")})
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(_toml(study.model_dump())))
    assert load_study(str(path)) == study
    assert tomllib.loads(path.read_text())["hours"] == "none"


def test_a_path_in_a_study_is_relative_to_it_and_a_name_is_a_name(tmp_path):
    """Folders of runs that happen to be called as a space or a model change nothing."""
    for name in ("layers_bits", "vit-micro", "resnet18", "other", "models/mine"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("other", "resnet18", "vit-micro"):
        (tmp_path / name / "config.json").touch()
    (tmp_path / "own.toml").write_text("description = 'd'\n[layer]\nweights = 'binary'\n")
    for space, model, expected in (
        ("layers_bits", "vit-micro", "vit-micro"),
        ("layers_bits", "resnet18", "resnet18"),
        ("own.toml", "other", str(tmp_path / "other")),
        ("own.toml", "models/mine", str(tmp_path / "models" / "mine")),
    ):
        (tmp_path / "s.toml").write_text(f"question = '?'\nspace = '{space}'\nmodel = '{model}'\n")
        study = load_study(str(tmp_path / "s.toml"))
        assert study.model == expected and study.space.name in space


def test_epochs_on_the_command_line_take_the_place_of_image_views():
    assert load_study("search_table").recipe.image_views
    recipe = overrides.override_study("search_table", {}, 3).recipe
    assert recipe.epochs == 3 and recipe.image_views is None


def test_epochs_on_the_command_line_are_those_of_every_trial(tmp_path):
    """Whatever else says how long to train: the space, a step, what is tuned, the reference."""
    (tmp_path / "s.toml").write_text("""
question = "?"
design = ["arms"]
tune = { epochs = [1, 2], learning_rate = [1e-3, 2e-3] }
reference = { name = "long", recipe = { image_views = 900 } }
[[steps]]
name = "more"
recipe = { epochs = 9, ema = 0.9 }
tune = { epochs = [8, 9] }
[space]
description = "d"
layer = { weights = ["full", "binary"] }
recipe = { epochs = [5, 7], batch_size = 32 }
""")
    (tmp_path / "other.toml").write_text(
        "description = 'd'\nlayer = { weights = 'binary' }\nrecipe = { image_views = 500 }\n"
    )
    for changes in ({}, {"space": str(tmp_path / "other.toml")}):
        design = Design(overrides.override_study(str(tmp_path / "s.toml"), changes, 3), ["head"])
        recipes = [spec.recipe for specs in design.planned for spec in specs]
        assert {(recipe.epochs, recipe.image_views) for recipe in recipes} == {(3, None)}
        assert {recipe.learning_rate for recipe in recipes} == {1e-3, 2e-3} and {
            recipe.ema for recipe in recipes
        } == {0.9}


def test_an_unknown_objective_has_no_unit():
    assert objectives.cell("train_seconds", 90) == "1 min 30 s" and {*objectives.COLUMNS} == {*OBJECTIVES}
    with pytest.raises(BadInput, match="unknown objective 'energy_j'"):
        objectives.cell("energy_j", 1e6)


def test_options_that_would_be_ignored_are_refused():
    for option in ("--epochs", "--full-epochs"):
        with pytest.raises(BadInput, match="--as-study trains by the study's own recipe; leave out --epochs"):
            main.app(["sensitivity", "--as-study", option, "2", "--dry-run"], standalone_mode=False)


def test_none_is_a_word():
    assert LayerSpec(weights="binary", activation_bits="none").activation_bits is None


def test_all_faults_are_reported_together():
    data = {
        "question": "?",
        "space": SPACE,
        "trials": 0,
        "sede": 1,
        "recipe": {"epochs": -1, "lerning_rate": 1},
    }
    with pytest.raises(BadInput) as caught:
        checked(StudySpec, data, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ") and "\n" not in message
    assert "trials: Input should be greater than or equal to 1, but got 0" in message
    assert "recipe.epochs" in message
    assert "unknown key 'sede'; did you mean 'seed'" in message
    assert "unknown key 'lerning_rate'; did you mean 'learning_rate'" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": {"weights": "trinary"}}, "weights: .*'binary', 'ternary'.*but got 'trinary'"),
        (
            {"layer": {"weights": ["binary"], "activation_bits": [8, 9]}},
            "activation_bits: .*less than or equal to 8, but got 9",
        ),
        (
            {"layer": {"weights": "binary", "bits": 8}},
            "unknown LayerSpec field 'bits'; did you mean 'activation_bits'",
        ),
        ({"layer": {"activation_bits": 8}}, "must say which `weights`"),
        ({"layer": {"weights": {"each": []}}}, "each"),
        ({"layer": {"weights": {"high": 1.0, "low": 2.0}}}, "low < high must hold"),
        ({"fraction": [0.0, 1.0]}, "fraction: .*greater than 0, but got 0"),
        ({"fraction": {"each": [0.5, 1.0]}}, "only fields of .layer. can be decided by each layer group"),
        ({"recipe": {"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}}, "0 < low with log"),
        ({"objectives": ["accuracy", "speed"]}, "unknown objective 'speed'"),
        ({"objectives": ["accuracy", "accuracy"]}, "objectives must differ"),
        ({"objectives": ["a:b", "a:b_low"]}, "'a:b_low' has the name of another's interval"),
        ({"recipe": {"validate_every": 10**400}}, "validate_every: .*less than or equal to 100000"),
    ],
)
def test_faulty_spaces(change, message):
    from ablate.config.search_space import SpaceSpec

    with pytest.raises(BadInput, match=message):
        checked(SpaceSpec, {**SPACE, **change}, "space")


def test_a_trial_spec_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrialSpec().seed = 3
