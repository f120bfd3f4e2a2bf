"""`--set FIELD=VALUE` sets any field of a study, with the errors of its file."""

import pytest
from commands import run_ablate

from ablate.cli.assignments import parse
from ablate.cli.overrides import check_used, override_study
from ablate.config.designs import EarlyStopping
from ablate.config.search_space import Each
from ablate.errors import BadInput


def studied(*texts, study="default", epochs=None, **overrides):
    return override_study(study, overrides, epochs, [*map(parse, texts)])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=3e-4", 3e-4),
        ("x = 1_000 ", 1000),
        ("x=true", True),
        ("x=True", "True"),  # no boolean of TOML: the field's check says so
        ("x=sgd", "sgd"),
        ("x='sgd'", "sgd"),
        ("x=-inf", float("-inf")),
        ("x=imagefolder:pets?size=64", "imagefolder:pets?size=64"),
        ("x=./my vit", "./my vit"),
        ("x=#1", "#1"),
        ('x=["full", "binary"]', ["full", "binary"]),
        ("x=[full, binary]", ["full", "binary"]),  # a shell takes the quotes away
        ("x=[2,-1e-3,true,none,\"a b\", 'c=d', e-f.g]", [2, -1e-3, True, "none", "a b", "c=d", "e-f.g"]),
        ("x={each=[full, binary]}", {"each": ["full", "binary"]}),
        ('x=[{name=a, layer={weights = binary, "activation_bits"=8}}]', [
            {"name": "a", "layer": {"weights": "binary", "activation_bits": 8}}
        ]),
        ("x=1\ny=2", "1\ny=2"),
    ],
)  # fmt: skip
def test_a_value_is_tomls_and_a_word_may_lack_its_quotes(text, value):
    (path, parsed) = parse(text)
    assert path == ("x",) and parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "text", ["x", "x=", "x= ", "=3", "a..b=3", "a b=3", "x=[1,2", "x={a=}", "x='a", "x=[1,,2]"]
)
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(BadInput, match=r"--set .* but got "):
        parse(text)


def test_any_field_is_set():
    study = studied(
        "recipe.learning_rate=3e-4",
        "recipe.epochs=9",
        "space.layer.activation_bits=[2,4]",
        "space.layer.weights.each=[full,int4]",
        "hours=none",
        "early_stopping.reduction=2",
    )
    assert study.recipe.learning_rate == 3e-4 and study.hours is None
    assert study.space.layer["activation_bits"] == (2, 4)
    assert study.space.layer["weights"] == Each(each=("full", "int4"))
    assert study.early_stopping == EarlyStopping(reduction=2) and study.recipe.epochs == 9
    assert study.recipe.full_epochs == studied().recipe.full_epochs  # the rest stays
    ladder = studied("steps.1.recipe.weight_decay=0.1", study="ladder")
    assert ladder.steps[1].recipe == {"optimizer": "adamw", "weight_decay": 0.1}
    assert ladder.steps[0] == studied(study="ladder").steps[0]


def test_the_space_of_an_option_may_be_changed_further(tmp_path):
    study = studied(
        "space.layer.activation_bits=[3]", "space.fraction={low=0.1, high=1.0}", space="bits", epochs=3
    )
    assert study.space.name == "bits" and study.space.layer["activation_bits"] == (3,)
    assert study.space.fraction.low == 0.1 and study.recipe.epochs == 3


def test_all_faults_are_reported_as_of_a_file():
    with pytest.raises(BadInput) as told:
        studied("recipe.lerning_rate=1", "trialls=3", "recipe.batch_size=many", "space.layer.wieghts=full")
    for part in (
        "did you mean 'learning_rate'",
        "did you mean 'trials'",
        "recipe.batch_size",
        "did you mean 'weights'",
    ):
        assert part in str(told.value)
    assert str(told.value).startswith("default.toml with options: ")


@pytest.mark.parametrize(
    ("texts", "options", "rule"),
    [
        (["seed=1", "seed=2"], {}, "seed and seed"),
        (["recipe={ema=0.9}", "recipe.epochs=2"], {}, "recipe and recipe.epochs"),
        (["trials=5"], {"trials": 4}, "--trials and --set trials both"),
        (["space=bits"], {"space": "bits"}, "--space and --set space both"),
        (["early_stopping.over=epochs"], {"early_stopping": {"over": "fraction"}}, "--early-stopping and"),
        (["early_stopping.first=2"], {"early_stopping": "none"}, "--early-stopping and --set"),
        (["space.recipe.image_views=9"], {"epochs": 4}, "--epochs replaces every length"),
        (["recipe={epochs=3}"], {"epochs": 4}, "--epochs replaces every length"),
        (["steps.30.name=x"], {"study": "ladder"}, "must name a place in the list steps, which are 0 to "),
    ],
)  # fmt: skip
def test_what_would_be_ignored_is_refused(texts, options, rule):
    with pytest.raises(BadInput, match=rule):
        studied(*texts, **options)


def test_a_part_of_a_rule_is_set_by_each():
    study = studied("early_stopping.first=2", early_stopping={"reduction": 4}, epochs=9)
    assert study.early_stopping == EarlyStopping(reduction=4, first=2)


@pytest.mark.parametrize(
    ("text", "as_study", "rule"),
    [
        ("trials=3", False, "takes space, .* but --set sets trials"),
        ("recipe.epochs=3", False, "give these options, or --as-study"),
        ("recipe.full_epochs=3", False, "give these options, or --as-study"),
        ("recipe.epochs=3", True, ""),
        ("space.layer.activation_bits=4", False, ""),
    ],
)
def test_a_sensitivity_analysis_refuses_what_it_would_not_use(text, as_study, rule):
    if not rule:
        return check_used([parse(text)], as_study)
    with pytest.raises(BadInput, match=rule):
        check_used([parse(text)], as_study)


@pytest.mark.long  # it imports Ray
def test_on_the_command_line(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "ablate.engine.run_study.run_study", lambda *given, **options: started.append(given[0]) or {}[0]
    )
    few = [
        "--set",
        "recipe.learning_rate=3e-4",
        "--set",
        "space.layer.activation_bits=[2,4]",
        "--set",
        "seed=7",
    ]
    with pytest.raises(KeyError):
        run_ablate(tmp_path, "study", *few, "--trials", "1")
    assert started == [studied(*few[1::2], trials=1)] and started[0].recipe.learning_rate == 3e-4
    for command in ("study", "sensitivity"):
        refused = run_ablate(tmp_path, command, "--set", "recipe.lerning_rate=1", "--dry-run")
        assert refused.returncode == 2 and "did you mean 'learning_rate'" in refused.stderr
        assert refused.stderr.count("\n") == 1
