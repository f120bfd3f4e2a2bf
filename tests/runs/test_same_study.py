"""One run, one study: what may change between a study and its resume, and what is refused."""

import json

import pytest

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.runs.same_study import check_same, study_fields

SPACE = {"description": "d", "layer": {"weights": ["full", "binary"]}, "recipe": {"batch_size": [8, 16]}}
STUDY = {"question": "?", "space": SPACE, "recipe": {"epochs": 1}, "trials": 4}


def edited(**changes):
    return StudySpec(**STUDY | changes)


@pytest.fixture
def begun(tmp_path):
    """A run's folder, with the study that it began with."""
    (tmp_path / "provenance.json").write_text(json.dumps({"study": study_fields(edited())}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": {"epochs": 2}}, "recipe.epochs was 1 and is 2"),
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"sampler": "random"}, "sampler was 'additive' and is 'random'"),
        (
            {"objectives": ["accuracy", "bitops"]},
            "objectives was ['accuracy', 'size_bytes'] and is ['accuracy', ",
        ),
        ({"confirm": 2}, "confirm was 0 and is 2"),
        (
            {"early_stopping": {"reduction": 2}, "recipe": {"epochs": 2}},
            "recipe.epochs was 1 and is 2; early_stopping was None and is {",
        ),
        (
            {"space": SPACE | {"layer": {"weights": ["full", "ternary"]}}},
            "space.layer.weights was ['full', 'binary'] and is ['full', 'ternary']",
        ),
        (
            {"space": SPACE | {"layer": {"weights": ["full", "binary"], "beta": 8}}},
            "space.layer.beta was 'absent' and is 8",
        ),
        ({"space": SPACE | {"recipe": {}}}, "space.recipe.batch_size was [8, 16] and is 'absent'"),
        ({"gap_margin": 0.02}, "gap_margin was 0.01 and is 0.02"),
    ],
)
def test_an_edit_is_refused_with_the_field_before_and_after(begun, changes, told):
    with pytest.raises(BadInput) as refused:
        check_same(begun, edited(**changes), [])
    assert told in str(refused.value) and "ablate study" in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trials": 9, "hours": 2.0},
        {"max_size_bytes": 10**6, "max_bitops": 1e9, "max_latency_ms": 3.0, "min_accuracy": 0.2},
        {"question": "!", "name": "other", "command": "x", "expected": "y", "cost": "z", "source": "w"},
        {"model": "elsewhere", "data": "imagefolder:moved"},  # their contents are compared
    ],
)
def test_limits_texts_and_folders_may_change(begun, changes):
    check_same(begun, edited(**changes), [])


def test_fields_of_another_version_are_no_edit(begun):
    fields = study_fields(edited())
    del fields["relative_margin"], fields["recipe"]["ema"]
    fields["of_a_newer_version"] = 1
    (begun / "provenance.json").write_text(json.dumps({"study": fields}))
    check_same(begun, edited(), [])
    with pytest.raises(BadInput, match="seed was 0 and is 1"):
        check_same(begun, edited(seed=1), [])


def test_a_run_of_an_older_version_has_its_records(tmp_path):
    layers = {"block0.fc1": LayerSpec(weights="binary")}
    spec = TrialSpec(
        model="vit-micro", data="cifar10-mini", layers=layers, recipe=Recipe(epochs=1, batch_size=16)
    )
    records = [blank_record(spec, "0123456789ab")]
    check_same(tmp_path, edited(), records)  # batch_size is searched
    with pytest.raises(BadInput, match=r"recipe\.epochs was 1 in trial 0123456789ab and is 2"):
        check_same(tmp_path, edited(recipe={"epochs": 2}), records)
    with pytest.raises(BadInput, match=r"recipe\.distill was 'absent' in trial 0123456789ab and is 0\.5"):
        check_same(tmp_path, edited(recipe={"epochs": 1, "distill": 0.5}), records)
