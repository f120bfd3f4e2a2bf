"""Objectives: the table, and users' own, named `module:name`."""

import math
import sys
import tomllib

import pytest
import tomli_w

from ablate.config import objectives
from ablate.config.own_objectives import compute, register
from ablate.config.study_spec import StudySpec, load_study
from ablate.errors import BadInput
from ablate.runs.record import OUTCOME

MODULE = """
from ablate import Objective
energy = Objective("min", "energy", "energy (mJ)", compute=lambda record: record["bitops"] * 2e-9)
text = Objective("max", "text", compute=lambda record: "much")
flag = Objective("max", "flag", compute=lambda record: True)
endless = Objective("max", "endless", compute=lambda record: float("inf"))
empty = Objective("max", "empty")
number = 3
"""
STUDY = {"question": "?", "space": {"description": "", "layer": {"weights": ["full", "binary"]}}}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module on the path, and the table as it was afterwards."""
    (tmp_path / "their_objectives.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_objectives"
    sys.modules.pop("their_objectives", None)
    for table in (objectives.TABLE, objectives.OBJECTIVES, objectives.COLUMNS, objectives.AXES):
        for name in [name for name in table if name.startswith("their_objectives:")]:
            del table[name]


def test_a_users_objective_is_described_and_computed(module):
    study = StudySpec(**STUDY, objectives=["accuracy", f"{module}:energy"]).with_descriptions()
    assert study.directions == {"accuracy": "max", f"{module}:energy": "min"}
    assert compute(f"{module}:energy", {"bitops": 3e9}) == pytest.approx(6)
    assert objectives.cell(f"{module}:energy", 6.0) == "6"
    assert objectives.AXES[f"{module}:energy"].label == "energy (mJ)"


def test_a_study_with_its_description_is_read_without_an_import(module, tmp_path):
    study = StudySpec(**STUDY, objectives=["accuracy", f"{module}:energy"]).with_descriptions()
    plain = {key: value for key, value in study.model_dump().items() if value is not None}
    recipe = {key: value for key, value in plain["recipe"].items() if value is not None}
    (tmp_path / "study.toml").write_text(tomli_w.dumps({**plain, "recipe": recipe}))
    del sys.modules[module]
    assert tomllib.loads((tmp_path / "study.toml").read_text())["described"]
    assert load_study(str(tmp_path / "study.toml")) == study
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere:energy", "must be importable, but got ModuleNotFoundError.*PYTHONPATH"),
        ("their_objectives:nothing", "must be importable, but 'their_objectives' has no 'nothing'; it has"),
        ("their_objectives:number", "must be an ablate.Objective with compute, but got 3"),
        ("their_objectives:empty", "must be an ablate.Objective with compute"),
    ],
)
def test_what_is_no_objective_is_refused_by_name(name, reason, module):
    study = StudySpec(**STUDY, objectives=["accuracy", name])
    with pytest.raises(BadInput, match=f"objective '{name}' {reason}"):
        study.with_descriptions()


def test_one_that_has_changed_is_refused(module):
    study = StudySpec(**STUDY, objectives=["accuracy", f"{module}:energy"]).with_descriptions()
    before = {f"{module}:energy": {**study.described[f"{module}:energy"], "unit": 1000.0}}
    with pytest.raises(BadInput, match="must be as it was when its run began"):
        study.model_copy(update={"described": before}).with_descriptions()


@pytest.mark.parametrize("name", ["text", "endless", "flag"])
def test_a_value_must_be_a_finite_number(name, module):
    with pytest.raises(BadInput, match=f"objective '{module}:{name}' must be a finite number, but got"):
        compute(f"{module}:{name}", {})


def test_a_name_that_is_neither_is_unknown():
    with pytest.raises(ValueError, match="unknown objective 'speed'"):
        StudySpec(**STUDY, objectives=["speed"])


def test_two_runs_must_describe_an_objective_alike(module):
    register(f"{module}:energy", {"direction": "min", "title": "energy"})
    with pytest.raises(BadInput, match="must have one description"):
        register(f"{module}:energy", {"direction": "max", "title": "energy"})


@pytest.mark.parametrize(
    "description",
    [
        {"direction": "up", "title": "energy"},
        {"title": "energy"},
        {"direction": "min", "title": ""},
        {"direction": "min", "title": "energy", "colour": "red"},
        {"direction": "min", "title": "energy", "unit": 0.0},
        {"direction": "min", "title": "energy", "unit": math.nan},
        {"direction": "min", "title": "energy", "text": "{:.2x}"},
        {"direction": "min", "title": "energy", "text": "{joule}"},
    ],
)
def test_a_description_that_is_none_is_refused(description, module):
    with pytest.raises((BadInput, ValueError), match="their_objectives:energy"):
        StudySpec(
            **STUDY,
            objectives=["their_objectives:energy"],
            described={"their_objectives:energy": description},
        )


def test_a_description_of_no_objective_is_refused():
    with pytest.raises(ValueError, match="described must be of the objectives"):
        StudySpec(**STUDY, described={"a:b": {"direction": "min", "title": "b"}})


@pytest.mark.parametrize("name", objectives.TABLE)
def test_every_built_in_objective_is_a_field_of_the_records(name):
    row = objectives.TABLE[name]
    assert name in OUTCOME and row.compute is None
