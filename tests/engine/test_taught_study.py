"""A study with an external teacher: planned, checked, named by its contents and resumed."""

import json

import pytest
from saved_models import SMALL, copy_files, edit, numbered, save
from transformers import ViTImageProcessor

from ablate import check_study
from ablate.config.recipe_values import teachers
from ablate.config.study_spec import StudySpec, load_study
from ablate.data import datasets
from ablate.engine.plan import plan
from ablate.engine.resume import _planned
from ablate.errors import BadInput
from ablate.runs import ledger
from ablate.runs.record import blank_record
from ablate.runs.same_study import check_same, study_fields
from ablate.training.trial import trial_id

SPACE = {"description": "d", "layer": {"weights": ["full", "binary"]}}
DISTILLED = {"epochs": 1, "bf16": False, "distill": 0.5}


@pytest.fixture
def folder(tmp_path):
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "taught")
    save(tmp_path / "taught", "ViTForImageClassification", SMALL, **numbered(datasets.CIFAR10))
    return tmp_path / "taught"


def study(model, teacher, recipe=DISTILLED, **fields):
    recipe = recipe | ({"teacher": str(teacher)} if teacher else {})
    return StudySpec(**{"question": "?", "space": SPACE, "model": str(model), "recipe": recipe, **fields})


def test_it_is_checked_before_a_study_begins(tiny_vit, folder):
    checks = [check for check in check_study(study(tiny_vit, folder)) if check.about == "teacher"]
    told = f"{folder}: The head is kept: the checkpoint's labels are the data's"
    assert [(check.found, check.notable) for check in checks] == [(told, True)]


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"distill": 0.5, "teacher": "vit-micro"}, "a teacher's head must know the data's classes"),
        ({"distill": 0.5, "teacher": "./nowhere"}, "no folder"),
        ({"teacher": "{folder}"}, r"needs a recipe that distills, but distill is 0 .*; set distill = 0\.5"),
    ],
)
def test_what_cannot_teach_is_refused_before_a_study_begins(tiny_vit, folder, recipe, told):
    recipe = {
        key: value.format(folder=folder) if key == "teacher" else value for key, value in recipe.items()
    }
    with pytest.raises(BadInput, match=told):
        plan(study(tiny_vit, None, recipe))


def test_a_teacher_of_one_step_is_planned_and_its_blocks_compared(tiny_vit, folder, tmp_path):
    other = tmp_path / "other"
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(other)
    save(other, "ViTForImageClassification", SMALL | {"num_hidden_layers": 1}, **numbered(datasets.CIFAR10))
    space = {"description": "d", "layer": {"weights": "binary"}}
    for teacher, refused in ((folder, False), (other, True)):
        steps = [{"name": "taught", "recipe": {"distill_blocks": 1.0, "teacher": str(teacher)}}]
        asked = study(tiny_vit, None, {"epochs": 1}, design="arms", steps=steps, space=space)
        if refused:
            with pytest.raises(BadInput, match="the model has 2 and the teacher 1"):
                plan(asked)
        else:
            assert [*plan(asked).teachers] == [str(teacher)]


def test_paths_in_files_are_relative_to_them(tiny_vit, folder, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        f"""question = "?"
model = "{tiny_vit}"
design = "arms"
recipe = {{ teacher = "taught", distill = 0.5 }}
tune = {{ teacher = ["none", "./taught"] }}
space = {{ description = "d", layer = {{ weights = "binary" }}, recipe = {{ teacher = "taught" }} }}
steps = [{{ name = "a", recipe = {{ teacher = "taught" }}, tune = {{ teacher = ["taught"] }} }}]
reference = {{ name = "b", recipe = {{ teacher = "taught" }} }}
"""
    )
    there, wanted = load_study(str(tmp_path / "mine.toml")), str(folder)
    parts = [dict(there.recipe), there.space.recipe, there.steps[0].recipe, there.reference.recipe]
    assert [part["teacher"] for part in parts] == [wanted] * 4
    assert there.tune["teacher"] == ("none", wanted) and there.steps[0].tune["teacher"] == (wanted,)
    monkeypatch.chdir(tmp_path)
    space = SPACE | {"recipe": {"teacher": ["none", "taught"]}}
    planned = plan(study(tiny_vit, "taught", space=space))
    assert teachers(planned.study) == [wanted] and planned.study.space.recipe["teacher"] == ("none", wanted)


def test_a_run_goes_on_with_moved_folders_of_equal_contents(tiny_vit, folder, tmp_path):
    """The search knows its trials again; other contents are refused."""
    begun = plan(study(tiny_vit, folder))
    run = tmp_path / "run"
    run.mkdir()
    about = begun.contents | {"study": study_fields(begun.study)}
    assert about.keys() == {"dataset_sha256", "model_sha256", "teacher_sha256", "study"}
    (run / "provenance.json").write_text(json.dumps(about))
    for spec in begun.anchors:
        done = {"status": "complete", "accuracy": 0.5, "size_bytes": 9, "images": 9}
        ledger.append(run / "ledger.jsonl", blank_record(spec, trial_id(spec, begun.dataset)) | done)
    model, teacher = (
        copy_files(old, new)
        for old, new in ((tiny_vit, tmp_path / "m"), (folder, tmp_path / "t"))
        if not new.mkdir()
    )
    moved = study(model, teacher)
    planned, records, _ = _planned(moved, run, None)
    assert {record["spec"]["recipe"]["teacher"] for record in records} == {str(teacher)}
    assert planned.search.ask() is None  # both points have records
    edit(teacher, lambda state: {key: value + 1 for key, value in state.items()})
    with pytest.raises(BadInput, match="go on with the teacher that it began with"):
        _planned(moved, run, None)
    with pytest.raises(BadInput, match=r"recipe.teacher was '.*taught' and is None"):
        check_same(run, study(model, None), [])
